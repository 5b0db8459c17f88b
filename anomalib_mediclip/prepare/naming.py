# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Names of the files that are made: those of the source, unless two would be the same."""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from anomalib_mediclip.data.masks import is_named_like
from anomalib_mediclip.prepare.entries import Entry

IMAGE_FOLDERS = ("train/normal", "test/normal", "test/abnormal")
MASK_FOLDER = "masks"
MAX_BYTES = 180  # of a name made of several; file systems allow 255, and unfinished files have longer names


class TargetNames(NamedTuple):
    """Where an image and its masks go.

    Attributes:
        image (str): Path of the image relative to the target, with forward slashes.
        masks (tuple[str, ...]): Paths of its masks, in the order of the entry.
    """

    image: str
    masks: tuple[str, ...]


def name_targets(entries: Sequence[Entry], shown: Sequence[PurePosixPath], splits: Sequence[str]) -> list[TargetNames]:
    """Name the files that are made.

    An image keeps its name if no other in its folder has the same stem, by which masks are paired. Otherwise the names
    of its folders are put before it: ``patient00001_study1_view1_frontal.jpg``. A mask keeps its name if that says
    which image it belongs to.

    Args:
        entries (Sequence[Entry]): Images.
        shown (Sequence[PurePosixPath]): Their names in the source, without what must not be seen.
        splits (Sequence[str]): ``"train"`` or ``"test"`` for each.

    Returns:
        list[TargetNames]: Names for each image; all are different, also where case does not count.
    """
    by_folder: dict[str, list[int]] = defaultdict(list)
    for position, (entry, split) in enumerate(zip(entries, splits, strict=True)):
        by_folder[f"{split}/{'abnormal' if entry.is_abnormal else 'normal'}"].append(position)
    named: dict[int, TargetNames] = {}
    for folder, positions in by_folder.items():
        names = _unique([shown[position] for position in positions])
        for position, name in zip(positions, names, strict=True):
            masks = _mask_names(PurePosixPath(name), entries[position])
            named[position] = TargetNames(f"{folder}/{name}", tuple(f"{MASK_FOLDER}/{mask}" for mask in masks))
    return [named[position] for position in range(len(entries))]


def _unique(paths: Sequence[PurePosixPath]) -> list[str]:
    """Return a file name for each path, with stems that differ."""
    counts = Counter(_key(path) for path in paths)
    names, taken = [], set[str]()
    for path in paths:
        name = PurePosixPath(path.name if counts[_key(path)] == 1 else _joined(path))
        ending = _ending(name)
        stem, number = name.name.removesuffix(ending), 1
        while _key(name) in taken:
            number += 1
            name = PurePosixPath(f"{stem}_{number}{ending}")
        taken.add(_key(name))
        names.append(name.name)
    return names


def _joined(path: PurePosixPath) -> str:
    """Return a file name made of the folders and the name of a file."""
    name = "_".join(path.parts)
    if len(name.encode()) <= MAX_BYTES:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:16] + _ending(path)


def _mask_names(image: PurePosixPath, entry: Entry) -> list[str]:
    """Return a file name for each mask of an image."""
    kept = [mask.name for mask in entry.masks if is_named_like(mask, image)]
    if len({name.casefold() for name in kept}) == len(entry.masks):
        return kept
    stem = image.name.removesuffix(_ending(image))
    numbers = [""] if len(entry.masks) == 1 else [f"_{number}" for number in range(1, len(entry.masks) + 1)]
    return [f"{stem}_mask{number}{_ending(mask)}" for number, mask in zip(numbers, entry.masks, strict=True)]


def _ending(path: PurePosixPath) -> str:
    """Return the ending of a name: ``.png``, ``.nii.gz``."""
    return path.name[-len(".nii.gz") :] if path.name.lower().endswith(".nii.gz") else path.suffix


def _key(path: PurePosixPath) -> str:
    """Return the stem of a name, in the form in which stems are compared."""
    return unicodedata.normalize("NFC", path.name.removesuffix(_ending(path))).casefold()
