# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Names of the files that are made."""

from pathlib import PurePosixPath

from anomalib_mediclip.prepare.entries import Entry
from anomalib_mediclip.prepare.naming import MAX_BYTES, name_targets


def targets_of(*images: tuple[str, bool, tuple[str, ...]], split: str = "test") -> list[tuple[str, ...]]:
    entries = [Entry(PurePosixPath(n), abnormal, tuple(map(PurePosixPath, masks))) for n, abnormal, masks in images]
    named = name_targets(entries, [entry.name for entry in entries], [split] * len(entries))
    return [(target.image, *target.masks) for target in named]


def test_names_are_kept() -> None:
    images = (("benign/benign (1).png", True, ("benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png")),)
    assert targets_of(*images, ("normal/1.png", False, ())) == [
        ("test/abnormal/benign (1).png", "masks/benign (1)_mask.png", "masks/benign (1)_mask_1.png"),
        ("test/normal/1.png",),
    ]


def test_images_of_one_name_get_those_of_their_folders() -> None:
    images = [(f"{patient}/study1/view1_frontal.jpg", False, ()) for patient in ("patient1", "patient2")]
    assert targets_of(*images, split="train") == [
        ("train/normal/patient1_study1_view1_frontal.jpg",),
        ("train/normal/patient2_study1_view1_frontal.jpg",),
    ]


def test_stems_differ_because_masks_are_paired_by_them() -> None:
    images = (("a/1.png", True, ("m/a/1.png",)), ("b/1.jpg", True, ("m/b/1.png",)), ("b/2.jpg", True, ("m/2.png",)))
    assert targets_of(*images) == [
        ("test/abnormal/a_1.png", "masks/a_1_mask.png"),
        ("test/abnormal/b_1.jpg", "masks/b_1_mask.png"),
        ("test/abnormal/2.jpg", "masks/2.png"),
    ]


def test_names_that_differ_in_case_only_are_made_different() -> None:
    assert targets_of(("X.png", True, ()), ("x.PNG", True, ())) == [
        ("test/abnormal/X.png",),
        ("test/abnormal/x_2.PNG",),
    ]


def test_a_joined_name_may_be_taken_already() -> None:
    images = [(name, False, ()) for name in ("a/1.png", "b/1.png", "a_1.png")]
    assert targets_of(*images) == [("test/normal/a_1.png",), ("test/normal/b_1.png",), ("test/normal/a_1_2.png",)]


def test_masks_that_are_not_named_like_their_image_are_renamed() -> None:
    images = (("scan.nii.gz", True, ("labels/one.nii.gz", "labels/two.nii.gz")), ("x.png", True, ("y.png",)))
    assert targets_of(*images) == [
        ("test/abnormal/scan.nii.gz", "masks/scan_mask_1.nii.gz", "masks/scan_mask_2.nii.gz"),
        ("test/abnormal/x.png", "masks/x_mask.png"),
    ]


def test_joined_names_are_not_too_long() -> None:
    images = [(f"{folder * 100}/{folder * 100}/1.dcm", False, ()) for folder in "ab"]
    names = [image for (image,) in targets_of(*images)]
    assert len(set(names)) == 2
    assert all(len(name) < MAX_BYTES and name.endswith(".dcm") for name in names)
