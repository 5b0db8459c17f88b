# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Splits: no patient and no image on both sides."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_mediclip.prepare.entries import Entry
from anomalib_mediclip.prepare.splits import draw_splits


def entries_of(*images: tuple[bool, str]) -> list[Entry]:
    return [
        Entry(PurePosixPath(f"{number}.png"), is_abnormal, patient=patient)
        for number, (is_abnormal, patient) in enumerate(images)
    ]


def normal(count: int) -> list[Entry]:
    return entries_of(*[(False, f"patient {number}") for number in range(count)])


def names(count: int) -> list[str]:
    return [f"hash {number}" for number in range(count)]


@given(
    images=st.lists(st.tuples(st.booleans(), st.sampled_from(["", *"abcdefgh"]), st.integers(0, 20)), min_size=1),
    fraction=st.floats(0, 0.9),
    seed=st.integers(0, 5),
)
@settings(max_examples=300, deadline=None)
def test_patients_and_copies_are_on_one_side(images: list[tuple[bool, str, int]], fraction: float, seed: int) -> None:
    entries = entries_of(*[(is_abnormal, patient) for is_abnormal, patient, _ in images])
    hashes = [str(digest) for *_, digest in images]
    try:
        splits = draw_splits(entries, hashes, fraction, seed)
    except ValueError as error:
        if "no normal image is left" not in str(error):
            raise
        return
    rows = list(zip(entries, hashes, splits, strict=True))
    trained = [(entry, digest) for entry, digest, split in rows if split == "train"]
    tested = [(entry, digest) for entry, digest, split in rows if split == "test"]
    assert not any(entry.is_abnormal for entry, _ in trained)
    assert not {entry.patient for entry, _ in trained if entry.patient} & {entry.patient for entry, _ in tested}
    assert not {digest for _, digest in trained} & {digest for _, digest in tested}
    assert splits == draw_splits(entries, hashes, fraction, seed)


def test_the_fraction_of_normal_images_is_tested() -> None:
    for fraction, tested in ((0, 0), (0.5, 10), (0.25, 5), (0.99, 20)):
        entries = normal(20)
        if tested == 20:
            with pytest.raises(ValueError, match=r"no normal image is left to train on.*--test_fraction"):
                draw_splits(entries, names(20), fraction, 0)
        else:
            assert draw_splits(entries, names(20), fraction, 0).count("test") == tested


def test_seeds_differ() -> None:
    assert draw_splits(normal(20), names(20), 0.5, 0) != draw_splits(normal(20), names(20), 0.5, 1)


def test_normal_images_of_tested_patients_count() -> None:
    entries = entries_of(*[(False, "ill")] * 4, (True, "ill"), *[(False, f"well {n}") for n in range(4)])
    splits = draw_splits(entries, names(9), 0.5, 0)
    assert splits == ["test"] * 5 + ["train"] * 4


def stated(*images: tuple[str, bool, str, str]) -> list[Entry]:
    return [
        Entry(PurePosixPath(name), is_abnormal, patient=patient, split=split)
        for name, is_abnormal, patient, split in images
    ]


def test_stated_splits_are_taken() -> None:
    entries = stated(("1", False, "a", "train"), ("2", False, "b", "test"), ("3", True, "", "test"))
    assert draw_splits(entries, names(3), 0.9, 7) == ["train", "test", "test"]


def test_a_patient_in_both_stated_splits_is_refused_without_its_name() -> None:
    entries = stated(("1.png", False, "Doe", "train"), ("2.png", False, "Doe", "test"), ("3.png", True, "", "test"))
    with pytest.raises(ValueError, match=r"1\.png \(train\) and 2\.png \(test\) show the same patient") as error:
        draw_splits(entries, names(3), 0.5, 0)
    assert "Doe" not in str(error.value)


def test_copies_in_both_stated_splits_are_refused() -> None:
    entries = stated(("1.png", False, "", "train"), ("2.png", False, "", "test"))
    with pytest.raises(ValueError, match=r"1\.png \(train\) and 2\.png \(test\) belong together"):
        draw_splits(entries, ["same", "same"], 0.5, 0)


def test_abnormal_images_are_not_trained_on() -> None:
    entries = stated(("1.png", True, "", "train"), ("2.png", False, "", "train"))
    with pytest.raises(ValueError, match=r"abnormal images into the training.*1\.png"):
        draw_splits(entries, names(2), 0.5, 0)
