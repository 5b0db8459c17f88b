# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Which files of an archive are images, what their labels are, and which masks they have."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from anomalib_mediclip.data.busi import is_mask as is_busi_mask
from anomalib_mediclip.data.chexpert import read_frontal, without_folder
from anomalib_mediclip.data.masks import pair_masks, split_masks
from anomalib_mediclip.data.samples import listed
from anomalib_mediclip.io import IMAGE_EXTENSIONS, images_in, natural_key
from anomalib_mediclip.prepare.archive import Archive
from anomalib_mediclip.prepare.label_table import LabelRow, read_label_table

# Folders that say what the images below them show; "folder" is any other set of images.
BUSI, BRAIN_MRI, CHEXPERT, FOLDER, TABLE = "BUSI", "BrainMRI", "CheXpert", "folder", "label table"
LABEL_FOLDERS: dict[str, dict[str, bool]] = {
    BUSI: {"benign": True, "malignant": True, "normal": False},
    BRAIN_MRI: {"yes": True, "no": False},
    FOLDER: {"normal": False, "abnormal": True},
}
CHEXPERT_LISTS = ("train.csv", "valid.csv")

UNKNOWN = "not an image"
NO_LABEL = "without a label"
SPARE_MASK = "mask of an image that is normal or not used"


class Entry(NamedTuple):
    """An image in an archive.

    Attributes:
        name (PurePosixPath): Its name in the archive.
        is_abnormal (bool): Whether it shows a lesion.
        masks (tuple[PurePosixPath, ...]): Names of the masks of its lesions.
        patient (str): Whom it shows, empty if unknown. Never written to a file, log or message.
        split (str): ``"train"`` or ``"test"`` if the label table says so, otherwise empty.
    """

    name: PurePosixPath
    is_abnormal: bool
    masks: tuple[PurePosixPath, ...] = ()
    patient: str = ""
    split: str = ""


class Listing(NamedTuple):
    """What an archive holds.

    Attributes:
        layout (str): How labels were found: name of the data set, ``"folder"`` or ``"label table"``.
        root (PurePosixPath): Folder in the archive to which names in reports are relative.
        entries (list[Entry]): Labelled images in natural order.
        unused (dict[PurePosixPath, str]): Every other file, and why it is not used.
    """

    layout: str
    root: PurePosixPath
    entries: list[Entry]
    unused: dict[PurePosixPath, str]


def read_entries(archive: Archive, labels: Path | None = None) -> Listing:
    """Find the images of an archive, their labels and their masks.

    Args:
        archive (Archive): Folder or zip file.
        labels (Path | None, optional): Label table. Defaults to ``None``: the layout says the labels.

    Returns:
        Listing: At least one normal image.

    Raises:
        ValueError: If there are no images or no normal ones, no labels are known, a mask fits no image, or the label
            table is wrong.
        FileNotFoundError: If a list names images that are not there.
    """
    images = _find_images(archive)
    if not images:
        msg = f"{archive.path} holds no images, only {listed(archive.names)}: give the folder or zip file of the images"
        raise ValueError(msg)
    if labels is not None:
        layout, root = TABLE, _top_folder(images)
        entries = _from_table(archive, images, read_label_table(labels, images, root))
    elif (found := _find_root(archive.names, CHEXPERT_LISTS)) is not None:
        layout, root = CHEXPERT, found
        entries = _from_chexpert(archive, root)
    else:
        layout, root = _find_layout(archive, images)
        entries = _from_folders(archive, layout, root, images)
    require_normal(archive, layout, entries)
    return Listing(layout, root, sorted(entries, key=_place), _find_unused(archive, images, entries))


def _place(entry: Entry) -> tuple[list[list[str | int]], str]:
    """Return the key of the natural order."""
    return natural_key(entry.name)


def _find_images(archive: Archive) -> list[PurePosixPath]:
    """Return the images of an archive: pictures by their ending, DICOM and NIfTI by their content."""

    def is_image(name: PurePosixPath) -> bool:
        if name.suffix.lower() in IMAGE_EXTENSIONS:
            return True
        with archive.file(name) as path:
            return bool(images_in(path))

    return [name for name in tqdm(archive.names, "listing", leave=False, delay=3, unit="file") if is_image(name)]


def require_normal(archive: Archive, layout: str, entries: Sequence[Entry]) -> None:
    """Check that there is something to train on.

    Args:
        archive (Archive): Where the images are.
        layout (str): How they got their labels.
        entries (Sequence[Entry]): Images.

    Raises:
        ValueError: If none is normal.
    """
    if all(entry.is_abnormal for entry in entries):
        msg = f"{archive.path} ({layout}) has no normal images: a few-shot model trains on normal images only; add some"
        raise ValueError(msg)


def _find_root(names: Sequence[PurePosixPath], parts: Sequence[str]) -> PurePosixPath | None:
    """Return the uppermost folder that directly holds files or folders of all these names."""
    held = {path for name in names for path in (name, *name.parents)}
    roots = [path.parent for path in held if path.name == parts[0]]
    roots = [root for root in roots if all(root / part in held for part in parts)]
    return min(roots, key=lambda root: (len(root.parts), root), default=None)


def _find_layout(archive: Archive, images: Sequence[PurePosixPath]) -> tuple[str, PurePosixPath]:
    """Return which layout an archive has, and its root."""
    for layout in (BUSI, BRAIN_MRI):
        root = _find_root(images, list(LABEL_FOLDERS[layout]))
        if root is not None:
            return layout, root
    if not any(_label(name, LABEL_FOLDERS[FOLDER]) is False for name in images):
        msg = (
            f"{archive.path}: nothing says which images are normal. Give --labels FILE, a csv with the columns file "
            "and label, or sort the images into folders named normal and abnormal"
        )
        raise ValueError(msg)
    return FOLDER, _top_folder(images)


def _top_folder(images: Sequence[PurePosixPath]) -> PurePosixPath:
    """Return the folder that everything lies in, such as the one that packing a folder adds."""
    root = PurePosixPath()
    while True:
        tops = {name.relative_to(root).parts[0] for name in images}
        top = next(iter(tops))
        if len(tops) > 1 or top in LABEL_FOLDERS[FOLDER] or root / top in images:
            return root
        root /= top


def _label(name: PurePosixPath, labels: Mapping[str, bool]) -> bool | None:
    """Return whether the nearest folder with a label says abnormal; None if there is none."""
    return next((labels[part] for part in reversed(name.parent.parts) if part in labels), None)


def _from_folders(archive: Archive, layout: str, root: PurePosixPath, images: Sequence[PurePosixPath]) -> list[Entry]:
    """Label images by the folders that they lie in."""
    labels = LABEL_FOLDERS[layout]
    if layout == FOLDER:
        images, masks = split_masks(images, PurePosixPath())
    else:  # some archives hold the images twice: only those directly in the folders of the layout count
        images = [name for name in images if name.parent.parent == root and name.parent.name in labels]
        masks = [name for name in images if layout == BUSI and is_busi_mask(name)]
        images = sorted(set(images) - set(masks))
    normal = [name for name in images if _label(name, labels) is False]
    abnormal = [name for name in images if _label(name, labels) is True]
    pairs = _pair(archive, abnormal, [mask for mask in masks if _label(mask, labels) is not False])
    entries = [Entry(name, False) for name in normal]
    return entries + [Entry(name, True, pairs.get(name, ())) for name in abnormal]


def _pair(
    archive: Archive, images: Sequence[PurePosixPath], masks: Sequence[PurePosixPath]
) -> dict[PurePosixPath, tuple[PurePosixPath, ...]]:
    """Find the masks of the abnormal images."""
    try:
        return pair_masks(images, masks, PurePosixPath(), PurePosixPath())
    except ValueError as error:
        msg = f"{archive.path}: {error}"
        raise ValueError(msg) from error


def _from_chexpert(archive: Archive, root: PurePosixPath) -> list[Entry]:
    """Read the two lists of CheXpert."""
    tables = []
    for name in CHEXPERT_LISTS:
        with archive.file(root / name) as path:
            try:
                tables.append(read_frontal(path))
            except ValueError as error:
                raise ValueError(archive.reason(error, path, root / name)) from error
    table = pd.concat(tables, ignore_index=True)
    table = table[table["is_normal"] | table["is_abnormal"]]
    names = [root / without_folder(name) for name in table["Path"]]
    missing = sorted(set(names) - set(archive.names))
    if missing:
        msg = (
            f"{archive.path}: {len(missing)} images that the lists name are missing: {listed(missing)}; unpack it again"
        )
        raise FileNotFoundError(msg)
    rows = zip(names, table["is_abnormal"], table["patient"], strict=True)
    return [Entry(name, bool(is_abnormal), patient=patient) for name, is_abnormal, patient in rows]


def _from_table(archive: Archive, images: Sequence[PurePosixPath], rows: Sequence[LabelRow]) -> list[Entry]:
    """Take labels, patients and splits from a table; masks too, if it has a column for them."""
    entries = [Entry(row.name, row.is_abnormal, row.masks or (), row.patient, row.split) for row in rows]
    if any(row.masks is not None for row in rows):
        return entries
    labelled = {entry.name for entry in entries}
    pictures, masks = split_masks(images, PurePosixPath())
    masks = [mask for mask in masks if mask not in labelled]
    pairs = _pair(archive, sorted(labelled | set(pictures)), masks)
    return [entry._replace(masks=pairs.get(entry.name, ())) if entry.is_abnormal else entry for entry in entries]


def _find_unused(
    archive: Archive, images: Sequence[PurePosixPath], entries: Sequence[Entry]
) -> dict[PurePosixPath, str]:
    """Say of every file that is not used why."""
    used = {name for entry in entries for name in (entry.name, *entry.masks)}
    reasons = dict.fromkeys(images, NO_LABEL) | dict.fromkeys(split_masks(images, PurePosixPath())[1], SPARE_MASK)
    return {name: reasons.get(name, UNKNOWN) for name in archive.names if name not in used}
