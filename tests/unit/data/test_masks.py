# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pairing of masks with images, and the check for missing files."""

from pathlib import Path

import pytest
from anomalib import TaskType

from anomalib_mediclip.data.masks import pair_masks
from anomalib_mediclip.data.samples import Sample, to_dataframe


def pair(images: list[str], masks: list[str]) -> dict[str, list[str]]:
    pairs = pair_masks(
        [Path("images") / name for name in images],
        [Path("masks") / name for name in masks],
        Path("images"),
        Path("masks"),
    )
    return {
        image.relative_to("images").as_posix(): [mask.relative_to("masks").as_posix() for mask in found]
        for image, found in pairs.items()
    }


def test_numbers_do_not_pair_by_position() -> None:
    masks = ["1_mask.png", "10_mask.png", "2_mask.png"]
    assert pair(["1.png", "10.png", "2.png"], masks) == {
        "1.png": ["1_mask.png"],
        "10.png": ["10_mask.png"],
        "2.png": ["2_mask.png"],
    }


def test_several_masks_of_one_image() -> None:
    masks = ["benign (4)_mask.png", "benign (4)_mask_1.png", "benign (4)_mask_2.png"]
    assert pair(["benign (4).png", "benign (40).png"], masks) == {"benign (4).png": masks}


@pytest.mark.parametrize(
    "mask", ["A.png", "a_MASK.png", "a-mask.png", "a_seg.tif", "a_label-2.png", "a_gt.png", "a mask1.png"]
)
def test_names_of_masks(mask: str) -> None:
    assert pair(["a.jpg", "ab.jpg"], [mask]) == {"a.jpg": [mask]}


def test_sub_folders_tell_equal_names_apart() -> None:
    images = ["left/1.png", "right/1.png", "1.png"]
    masks = ["abnormal/left/1.png", "abnormal/right/1_mask.png", "1.png"]
    assert pair(images, masks) == dict(zip(images, [[mask] for mask in masks], strict=True))


def test_mask_without_image_is_named() -> None:
    with pytest.raises(ValueError, match=r"masks/3_mask\.png has no image"):
        pair(["1.png", "2.png"], ["1_mask.png", "3_mask.png"])


def test_an_exact_name_wins() -> None:
    assert pair(["1.png", "1_mask.png"], ["1_mask.png"]) == {"1_mask.png": ["1_mask.png"]}


def test_accents_are_compared_in_one_form() -> None:
    composed, apart = "\u00e9", "e\u0301"
    assert pair([f"{composed}.png"], [f"{apart}_mask.png"]) == {f"{composed}.png": [f"{apart}_mask.png"]}


def test_folders_that_only_tell_images_from_masks_do_not_count() -> None:
    images, masks = ["a/images/1.png", "b/images/1.png"], ["a/masks/1.png", "b/masks/1.png"]
    assert pair(images, masks) == dict(zip(images, [[mask] for mask in masks], strict=True))


@pytest.mark.parametrize("images", [["1.png", "1.jpg"], ["1.png", "1.PNG"]])
def test_mask_of_several_images_is_named(images: list[str]) -> None:
    with pytest.raises(ValueError, match=r"masks/1_mask\.png fits several images"):
        pair(images, ["1_mask.png"])


def test_missing_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "here.png").touch()
    samples = [Sample(tmp_path / name) for name in ("here.png", "gone.png", "lost.png")]
    with pytest.raises(FileNotFoundError, match=r"2 files .*gone\.png, .*lost\.png"):
        to_dataframe(samples, "test", TaskType.CLASSIFICATION)
