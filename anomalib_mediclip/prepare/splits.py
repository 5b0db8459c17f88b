# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Which images are trained on and which are tested: patients and copies of an image stay on one side."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from anomalib_mediclip.data.samples import LISTED_IN_ERRORS
from anomalib_mediclip.prepare.entries import Entry

TRAIN, TEST = "train", "test"


def draw_splits(entries: Sequence[Entry], hashes: Sequence[str], test_fraction: float, seed: int) -> list[str]:
    """Divide images into those to train on and those to test on.

    Images of one patient, and images of the same content, form a group, which is never divided. A group with an
    abnormal image is tested. Of the other groups, as many are drawn for the test as keep the normal test images at or
    below the fraction that is asked for. A split that the label table states is taken as it is.

    Args:
        entries (Sequence[Entry]): Images.
        hashes (Sequence[str]): Hash of the content of each image.
        test_fraction (float): Part of the normal images to test on, from 0 to below 1.
        seed (int): Seed of the draw.

    Returns:
        list[str]: ``"train"`` or ``"test"`` for each image.

    Raises:
        ValueError: If no normal image is left to train on, or the table puts a patient, or copies of an image, on both
            sides, or an abnormal image into the training.
    """
    groups = _group(entries, hashes)
    stated = any(entry.split for entry in entries)
    sides = _stated_sides(entries, groups) if stated else _drawn_sides(entries, groups, test_fraction, seed)
    splits = [sides[group] for group in groups]
    if TRAIN not in splits:
        msg = (
            "no normal image is left to train on: the patients of all normal images have abnormal ones too, or are "
            "tested. Add normal images of other people, or lower --test_fraction"
        )
        raise ValueError(msg)
    return splits


def _group(entries: Sequence[Entry], hashes: Sequence[str]) -> list[int]:
    """Number the groups of images that belong together, in the order of their first image."""
    first: dict[tuple[str, str], int] = {}
    links = [(position, position) for position in range(len(entries))]
    for position, (entry, digest) in enumerate(zip(entries, hashes, strict=True)):
        keys = [("content", digest), *([("patient", entry.patient)] if entry.patient else [])]
        links += [(position, first.setdefault(key, position)) for key in keys]
    rows, columns = zip(*links, strict=True)
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(entries), len(entries)))
    return connected_components(graph, directed=False)[1].tolist()


def _drawn_sides(entries: Sequence[Entry], groups: Sequence[int], test_fraction: float, seed: int) -> dict[int, str]:
    """Draw the side of each group."""
    sizes = np.bincount(groups)
    with_lesions = {group for group, entry in zip(groups, entries, strict=True) if entry.is_abnormal}
    normal = [group for group, entry in zip(groups, entries, strict=True) if not entry.is_abnormal]
    wanted = round(test_fraction * len(normal)) - sum(group in with_lesions for group in normal)
    sides = dict.fromkeys(groups, TRAIN) | dict.fromkeys(with_lesions, TEST)
    free = [group for group in dict.fromkeys(normal) if group not in with_lesions]
    for index in np.random.default_rng(seed).permutation(len(free)):
        group = free[index]
        if sizes[group] <= wanted:
            sides[group] = TEST
            wanted -= sizes[group]
    return sides


def _stated_sides(entries: Sequence[Entry], groups: Sequence[int]) -> dict[int, str]:
    """Take the side of each group from the label table."""
    trained = [entry.name for entry in entries if entry.is_abnormal and entry.split == TRAIN]
    if trained:
        msg = f"the label table puts abnormal images into the training, which takes normal ones only: {_some(trained)}"
        raise ValueError(msg)
    sides: dict[int, str] = {}
    examples: dict[int, Entry] = {}
    faults = []
    for group, entry in zip(groups, entries, strict=True):
        other = examples.setdefault(group, entry)
        if sides.setdefault(group, entry.split) != entry.split:
            same = "show the same patient" if entry.patient and entry.patient == other.patient else "belong together"
            faults.append(f"{other.name} ({other.split}) and {entry.name} ({entry.split}) {same}")
    if faults:
        msg = (
            "the label table puts images of one patient, or copies of one image, into training and test, so that the "
            f"test would be of known images: {_some(faults)}. Correct the column split, or remove it to have it drawn"
        )
        raise ValueError(msg)
    return sides


def _some(faults: Sequence[object]) -> str:
    """List the first ten faults and the number of the others."""
    more = len(faults) - LISTED_IN_ERRORS
    return "; ".join(map(str, faults[:LISTED_IN_ERRORS])) + (f"; and {more} more" if more > 0 else "")
