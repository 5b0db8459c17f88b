# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Slices of volumes: a slice is a path below its file, so that it goes wherever the path of an image goes.

``scan.nii.gz/0012`` is slice 12 of a NIfTI volume, ``cine.dcm/0003`` frame 3 of a multi-frame DICOM file, both counted
from 0. A DICOM file of a single image is its own path.
"""

import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomalib_mediclip.display import Plane, chosen_window, slice_plane
from anomalib_mediclip.io.dicom import DicomFrames, place, read_kind
from anomalib_mediclip.io.errors import ImageFileError, named
from anomalib_mediclip.io.kinds import kind_of
from anomalib_mediclip.io.nifti import NiftiVolume, read_grid
from anomalib_mediclip.io.windows import Decoded, Window

_NUMBER = re.compile(r"\d{4,}")

_loading = threading.RLock()


def file_of(path: str | Path) -> tuple[Path, int | None]:
    """Return the file of an image, and the number of the slice.

    Args:
        path (str | Path): Image file, or slice of a volume.

    Returns:
        tuple[Path, int | None]: File that exists if the image does; number of the slice from 0, None for a file.

    Example:
        >>> file_of("images/0012")
        (PosixPath('images/0012'), None)
    """
    path = Path(path)
    if _NUMBER.fullmatch(path.name) and path.parent.is_file():
        return path.parent, int(path.name)
    return path, None


def is_slice(path: str | Path) -> bool:
    """Tell the path of a slice from that of a file.

    Args:
        path (str | Path): Path.

    Returns:
        bool: Whether it is a number below a file.
    """
    return file_of(path)[1] is not None


def slices_of(path: str | Path) -> list[Path]:
    """List the images of a file.

    Args:
        path (str | Path): Image file, or slice of a volume.

    Returns:
        list[Path]: Slices of a NIfTI volume or of a multi-frame DICOM file, in order; the path itself of anything else.

    Raises:
        ImageFileError: If it is DICOM or NIfTI and its header cannot be read.
    """
    return list_images(Path(path)).images


class Listing(NamedTuple):
    """Images of a file, and where they belong.

    Attributes:
        images (list[Path]): The file itself, or its slices.
        series (str): DICOM series of a file of one image; empty for any other file.
        place (tuple[bool, float, int]): What sorts the files of a series.
    """

    images: list[Path]
    series: str = ""
    place: tuple[bool, float, int] = (True, 0.0, 0)


def list_images(path: Path) -> Listing:
    """List the images of a file, with its place in its series.

    Args:
        path (Path): Image file, or slice of a volume.

    Returns:
        Listing: Images, series and place.

    Raises:
        NoImageError: If it is DICOM of a kind without an image.
        ImageFileError: If it is DICOM or NIfTI and its header cannot be read.
    """
    kind = kind_of(path) if path.is_file() else None
    if kind is None or kind == "picture":
        return Listing([path])
    with named(path):
        if kind == "nifti":
            return Listing(_numbered(path, read_grid(path).shape_in(_display()[1])[0]))
        found = read_kind(path)
        frames = found.shape[0]
        return Listing([path], found.series, place(found)) if frames == 1 else Listing(_numbered(path, frames))


def is_medical(file: Path) -> bool:
    """Tell whether a file is DICOM or NIfTI.

    Args:
        file (Path): File.

    Returns:
        bool: Whether this module reads it.
    """
    return kind_of(file) in ("dicom", "nifti")


def size_of(path: Path) -> tuple[int, int]:
    """Return the size of a DICOM image or of a slice, from the header.

    Args:
        path (Path): DICOM file of one image, or slice of a volume.

    Returns:
        tuple[int, int]: Height and width in pixels.

    Raises:
        ImageFileError: If there is no such slice, or the header cannot be read.
    """
    file, index = file_of(path)
    # the header of a file of many frames takes long, and its frames are asked for one after the other
    count, height, width = _opened(file).shape if index is not None else _shape(file)
    _checked(file, index, count)
    return height, width


def read_slice(path: Path) -> Decoded:
    """Decode a DICOM image or a slice.

    Args:
        path (Path): DICOM file of one image, or slice of a volume.

    Returns:
        Decoded: Pixels ``(H, W, 1 or 3)`` in the unit of the file, and the window to show.

    Raises:
        ImageFileError: If there is no such slice, or the file cannot be read.
    """
    file, index = file_of(path)
    volume = DicomFrames(file) if index is None and kind_of(file) == "dicom" else _opened(file)
    return volume.read(_checked(file, index, volume.shape[0]), _display()[0])


def content_of(path: str | Path) -> bytes:
    """Return what an image is recognised by, under whatever name.

    Args:
        path (str | Path): Image file, or slice of a volume.

    Returns:
        bytes: Bytes of the file; of a slice, its size and its values.
    """
    file, index = file_of(path)
    if index is None:
        return file.read_bytes()
    pixels = read_slice(Path(path)).pixels
    return repr((pixels.shape, pixels.dtype.str)).encode() + np.ascontiguousarray(pixels).tobytes()


def _numbered(path: Path, count: int) -> list[Path]:
    """Return the paths of slices."""
    return [path / f"{index:04d}" for index in range(count)]


def _shape(file: Path) -> tuple[int, int, int]:
    """Return slices, height and width from the header."""
    return read_kind(file).shape if kind_of(file) == "dicom" else read_grid(file).shape_in(_display()[1])


def _checked(file: Path, index: int | None, count: int) -> int:
    """Return the number of a slice that exists."""
    if index is None and (count > 1 or kind_of(file) == "nifti"):
        msg = f"it is a volume of {count} slices: give one of them, {file.name}/0000 to {file.name}/{count - 1:04d}"
        raise ImageFileError(msg)
    if index is not None and index >= count:
        msg = f"there is no slice {index}: {file.name} has {count}, counted from 0"
        raise ImageFileError(msg)
    return index or 0


def _display() -> tuple[Window | None, Plane]:
    """Return the window and the plane that the user has chosen."""
    try:
        chosen = chosen_window()
        return Window(*chosen) if chosen else None, slice_plane()
    except ValueError as error:  # no fault of the file
        raise ImageFileError(error) from error


def _opened(file: Path) -> DicomFrames | NiftiVolume:
    """Return the volume of a file; the last one is kept, so that its slices do not unpack it again."""
    status = file.stat()
    with _loading:  # threads that ask for slices of one volume must not all unpack it
        volume = _volume(file, status.st_size, status.st_mtime_ns, _display()[1])
    if isinstance(volume, ImageFileError):
        raise type(volume)(*volume.args)
    return volume


@lru_cache(maxsize=1)
def _volume(file: Path, size: int, changed: int, plane: Plane) -> DicomFrames | NiftiVolume | ImageFileError:
    """Open a volume, or return why it cannot be opened, so that no slice of a damaged one unpacks it again."""
    del size, changed  # a file that is written anew is another volume
    try:
        return DicomFrames(file) if kind_of(file) == "dicom" else NiftiVolume(file, plane)
    except ImageFileError as error:
        return error
