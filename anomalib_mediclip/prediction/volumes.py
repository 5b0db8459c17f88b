# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Which of the predicted images are slices of one volume: NIfTI files, multi-frame DICOM files and DICOM series."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from anomalib_mediclip.io.dicom import read_kind, series_of
from anomalib_mediclip.io.errors import ImageFileError
from anomalib_mediclip.io.kinds import kind_of
from anomalib_mediclip.io.volumes import file_of
from anomalib_mediclip.prediction.naming import volume_name

logger = logging.getLogger(__name__)


class Volume(NamedTuple):
    """A volume, or a single DICOM image, of which results are written.

    Attributes:
        kind (str): ``"nifti"`` or ``"dicom"``.
        name (Path): Folder of its results, relative.
        slices (dict[str, int]): Place of every predicted slice, by its path: number in the file, or in the series.
    """

    kind: Literal["nifti", "dicom"]
    name: Path
    slices: dict[str, int]


def volumes_of(paths: Sequence[Path], root: Path | None) -> dict[str, Volume]:
    """Find the volumes among images to predict. Other images, such as PNG, belong to none.

    Files of a DICOM series belong together where they are in one folder and make a volume: of one size and orientation,
    with a position each. If they do not, a warning says why, and each is an image of its own.

    Args:
        paths (Sequence[Path]): Images and slices.
        root (Path | None): Folder below which results are named.

    Returns:
        dict[str, Volume]: Volume of every path that belongs to one.
    """
    frames: dict[Path, dict[str, int]] = {}
    single: dict[Path, list[Path]] = {}  # DICOM files of one image, by their folder
    for path in paths:
        file, number = file_of(path)
        if number is not None:
            frames.setdefault(file, {})[str(path)] = number
        elif _is_readable(file):
            single.setdefault(file.parent, []).append(file)
    volumes = [
        Volume("nifti" if kind_of(file) == "nifti" else "dicom", volume_name(file, root), slices)
        for file, slices in frames.items()
    ]
    for folder, files in single.items():
        volumes += _series_in(folder, files, root)
    return {path: volume for volume in volumes for path in volume.slices}


def _series_in(folder: Path, files: list[Path], root: Path | None) -> list[Volume]:
    """Return the series of a folder: named by the folder, or by the file if there is one image in it."""
    series = _grouped(files)
    several = [group for group in series if len(group) > 1]
    names = {
        id(group): volume_name(folder, root) / (f"series~{number}" if len(several) > 1 else "")
        for number, group in enumerate(several, start=1)
    }
    return [
        Volume(
            "dicom",
            names.get(id(group), volume_name(group[0], root)),
            {str(path): place for place, path in enumerate(group)},
        )
        for group in series
    ]


def _grouped(files: list[Path]) -> list[list[Path]]:
    """Return series in order of position; every file alone if some make no volume."""
    try:
        return list(series_of(files).values())
    except ImageFileError as error:
        logger.warning("%s. The DICOM files of this folder get results one by one.", str(error).rstrip("."))
        return [[file] for file in files]


def _is_readable(file: Path) -> bool:
    """Tell whether a file is DICOM with a header that can be read; the table says what is wrong with others."""
    try:
        return kind_of(file) == "dicom" and bool(read_kind(file))
    except (ImageFileError, OSError):
        return False
