# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Table of labels: a csv file with the columns ``file`` and ``label``, perhaps ``mask``, ``patient`` and ``split``."""

import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from anomalib_mediclip.data.authors_lists import IS_ABNORMAL
from anomalib_mediclip.data.samples import LISTED_IN_ERRORS

logger = logging.getLogger(__name__)

REQUIRED = ("file", "label")
OPTIONAL = ("mask", "patient", "split")
SPLITS = ("train", "test")
SEPARATOR = "|"  # of several masks in a cell; no system that users share files with allows it in a name


class LabelRow(NamedTuple):
    """What a label table says about an image.

    Attributes:
        name (PurePosixPath): Image in the archive.
        is_abnormal (bool): Whether it shows a lesion.
        masks (tuple[PurePosixPath, ...] | None): Its masks; None if the table has no column for masks.
        patient (str): Whom it shows, empty if unknown.
        split (str): ``"train"``, ``"test"``, or empty if the table has no column for it.
    """

    name: PurePosixPath
    is_abnormal: bool
    masks: tuple[PurePosixPath, ...] | None
    patient: str
    split: str


def read_label_table(path: Path, images: Sequence[PurePosixPath], root: PurePosixPath) -> list[LabelRow]:
    """Read a table of labels and look up its files among the images of an archive.

    ``file`` names an image, or a folder all of whose images the row is about, such as the series of a scan. Names are
    those in the archive, with or without the folder that everything lies in.

    Args:
        path (Path): Table in UTF-8, columns separated by commas.
        images (Sequence[PurePosixPath]): Images and masks in the archive.
        root (PurePosixPath): Folder of the archive that may be left out in names.

    Returns:
        list[LabelRow]: A row for each image, in the order of the table.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a file is unknown or listed twice, or a label or split is wrong. At most ten
            faults are listed, by line.
    """
    table = _read(path)
    finder = _Finder(images, root)
    rows: list[LabelRow] = []
    faults: list[str] = []
    for line, cells in enumerate(table.to_dict("records"), start=2):
        try:
            rows += _parse({str(column): cell.strip() for column, cell in cells.items()}, finder)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    faults += _contradictions(rows)
    if faults:
        listed = "\n  ".join(faults[:LISTED_IN_ERRORS])
        more = f"\n  and {len(faults) - LISTED_IN_ERRORS} more" if len(faults) > LISTED_IN_ERRORS else ""
        msg = f"{path} cannot be used:\n  {listed}{more}"
        raise ValueError(msg)
    return rows


def _read(path: Path) -> pd.DataFrame:
    """Read the cells as text, and check the columns."""
    if not path.is_file():
        msg = f"no label table {path} (absolute: {path.absolute()}): check the path"
        raise FileNotFoundError(msg)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    except ValueError as error:
        msg = f"{path} is no csv file in UTF-8 ({error}): save it as one, with commas between the columns"
        raise ValueError(msg) from error
    table.columns = [str(column).strip().lower() for column in table.columns]
    missing = [column for column in REQUIRED if column not in table.columns]
    if missing:
        msg = (
            f"{path} lacks the columns {', '.join(missing)}: expected {', '.join(REQUIRED)} and perhaps "
            f"{', '.join(OPTIONAL)}, separated by commas; found {', '.join(table.columns)}"
        )
        raise ValueError(msg)
    ignored = [column for column in table.columns if column not in (*REQUIRED, *OPTIONAL)]
    if ignored:
        logger.warning("%s: the columns %s are not used", path, ", ".join(ignored))
    return table


def _parse(cells: dict[str, str], finder: "_Finder") -> list[LabelRow]:
    """Turn a row of the table into one for each image."""
    if not any(cells.values()):
        return []
    names = finder.images(cells["file"])
    label = cells["label"].lower()
    if label not in IS_ABNORMAL:
        msg = f"label {cells['label']!r} of {cells['file']}: expected one of {', '.join(IS_ABNORMAL)}"
        raise ValueError(msg)
    masks = None
    if "mask" in cells:
        masks = tuple(finder.file(mask.strip()) for mask in cells["mask"].split(SEPARATOR) if mask.strip())
        if masks and not IS_ABNORMAL[label]:
            msg = f"{cells['file']} is normal and has a mask: correct the label, or leave the mask out"
            raise ValueError(msg)
        if masks and len(names) > 1:
            msg = f"{cells['file']} is a folder of {len(names)} images, so {cells['mask']} cannot be its mask"
            raise ValueError(msg)
    split = cells.get("split", "").lower()
    if "split" in cells and split not in SPLITS:
        msg = f"split {cells['split']!r} of {cells['file']}: expected one of {', '.join(SPLITS)}; or remove the column"
        raise ValueError(msg)
    return [LabelRow(name, IS_ABNORMAL[label], masks, cells.get("patient", ""), split) for name in names]


def _contradictions(rows: Sequence[LabelRow]) -> list[str]:
    """Find images that are listed twice, or that are the mask of another one."""
    faults = []
    seen: set[PurePosixPath] = set()
    masks = {mask for row in rows for mask in row.masks or ()}
    for row in rows:
        if row.name in seen:
            faults.append(f"{row.name} is listed twice")
        if row.name in masks:
            faults.append(f"{row.name} is listed as an image and as a mask")
        seen.add(row.name)
    return faults


class _Finder:
    """Finds files by the names that a table gives them, whatever the form of accents."""

    def __init__(self, images: Sequence[PurePosixPath], root: PurePosixPath) -> None:
        self._files: dict[str, PurePosixPath] = {}
        self._folders: dict[str, list[PurePosixPath]] = {}
        for start in (root, PurePosixPath()):  # the full name wins
            for image in images:
                name = image.relative_to(start)
                self._files[_key(name)] = image
            for image in images:
                for folder in image.relative_to(start).parents[:-1]:
                    self._folders.setdefault(_key(folder), []).append(image)

    def file(self, name: str) -> PurePosixPath:
        """Return the file of this name."""
        found = self._files.get(_key(PurePosixPath(name.replace("\\", "/"))))
        if found is None:
            msg = f"there is no file {name!r} of an image in the source"
            raise ValueError(msg)
        return found

    def images(self, name: str) -> list[PurePosixPath]:
        """Return the file of this name, or the files below the folder of this name."""
        below = self._folders.get(_key(PurePosixPath(name.replace("\\", "/"))), [])
        return list(dict.fromkeys(below)) or [self.file(name)]


def _key(name: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(name))
