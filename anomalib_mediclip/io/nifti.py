# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""NIfTI volumes as slices, turned as radiologists look at them.

A slice is shown like a DICOM image of its plane: axial with the patient's left on the right and the front on top,
coronal with the left on the right and the head on top, sagittal with the front on the left and the head on top. Slices
are counted from 0 towards head, front or right. An oblique volume is not resampled: its closest axes count.
"""

import gzip
import logging
import math
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from anomalib_mediclip.display import Plane
from anomalib_mediclip.io.errors import ImageFileError
from anomalib_mediclip.io.kinds import GZIP, HEADER, is_nifti, is_pair, unpacked
from anomalib_mediclip.io.temporary import in_temporary_file
from anomalib_mediclip.io.windows import Decoded, Window, sampling_step, window_of
from anomalib_mediclip.limits import VARIABLE, max_megapixels

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it logs what becomes one error here

LARGEST = 4  # voxels of a volume, as a multiple of the limit of the pixels of an image
_CHUNK = 2**24  # bytes that are unpacked at a time
_GZIP_RATIO = 1032  # no gzip file unpacks to more than this multiple of its size

# To which side slices, rows and columns of a plane run.
_DIRECTIONS: dict[Plane, tuple[str, str, str]] = {
    "axial": ("S", "P", "L"),
    "coronal": ("A", "I", "L"),
    "sagittal": ("R", "I", "P"),
}


class Grid(NamedTuple):
    """Voxels of a NIfTI file.

    Attributes:
        shape (tuple[int, int, int]): Size of the stored volume, of one voxel along axes that it does not have.
        affine (np.ndarray): Matrix ``(4, 4)`` from stored indices to millimetres, to the right, front and head.
        dtype (np.dtype): Stored numbers, with their byte order.
        offset (int): Bytes before the first voxel, in the content if the file is compressed.
        slope (float): Factor of the stored numbers.
        intercept (float): What is added to them then.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float

    def shape_in(self, plane: Plane) -> tuple[int, int, int]:
        """Return the number of slices of a plane, their height and their width."""
        turned = _turning(self.affine, plane)
        sizes = dict(zip(turned[:, 0].astype(int).tolist(), self.shape, strict=True))
        return sizes[0], sizes[1], sizes[2]


def to_slices(volume: npt.NDArray[Any], affine: npt.NDArray[np.float64], plane: Plane) -> npt.NDArray[Any]:
    """Turn a stored volume into slices as they are shown.

    Args:
        volume (np.ndarray): Stored volume of three axes.
        affine (np.ndarray): Matrix ``(4, 4)`` from stored indices to millimetres.
        plane (Plane): Plane of the slices.

    Returns:
        np.ndarray: View ``(slices, rows, columns)``.
    """
    return np.asarray(apply_orientation(volume, _turning(affine, plane)))


def part_of_slices(grid: Grid, plane: Plane, start: int, stop: int) -> tuple[slice, slice, slice]:
    """Tell where in the slices a slab of the stored volume is.

    Args:
        grid (Grid): Stored volume.
        plane (Plane): Plane of the slices.
        start (int): First index along the third stored axis.
        stop (int): Index after the last one.

    Returns:
        tuple[slice, slice, slice]: Its slices, rows and columns; in one of the three it does not have all.
    """
    axis, direction = _turning(grid.affine, plane)[2]
    size, part = grid.shape[2], [slice(None)] * 3
    part[int(axis)] = slice(start, stop) if direction == 1 else slice(size - stop, size - start)
    return part[0], part[1], part[2]


def _turning(affine: npt.NDArray[np.float64], plane: Plane) -> npt.NDArray[Any]:
    """Return how stored axes become those of slices."""
    turning: npt.NDArray[Any] = ornt_transform(io_orientation(affine), axcodes2ornt(_DIRECTIONS[plane]))
    return turning


def read_grid(path: Path) -> Grid:
    """Read size, orientation and kind of numbers of a volume, and check them against the size of the file.

    Args:
        path (Path): NIfTI file.

    Returns:
        Grid: What the header says.

    Raises:
        ImageFileError: If the header is damaged, the file truncated, the volume too large, of several time points or of
            a kind that is not supported, or if its affine matrix is singular.
    """
    with path.open("rb") as file:
        stored = file.read(HEADER)
    head = unpacked(path, stored)
    if not is_nifti(head):
        raise ImageFileError(_damaged("the header"))
    if is_pair(head):
        msg = "a NIfTI of two files (.hdr and .img) is not supported: save it as one file (.nii or .nii.gz)"
        raise ImageFileError(msg)
    try:
        header = _header(head)
        shape, affine = header.get_data_shape(), np.asarray(header.get_best_affine(), dtype=np.float64)
        dtype, offset = header.get_data_dtype(), header.get_data_offset()
        slope, intercept = header.get_slope_inter()
    except Exception as error:  # nibabel raises many kinds
        raise ImageFileError(_damaged("the header")) from error
    grid = Grid(_spatial(shape), affine, dtype, offset, slope or 1.0, intercept or 0.0)
    _check_numbers(grid)
    _check_affine(affine)
    _check_size(grid, path.stat().st_size, is_packed=stored.startswith(GZIP))
    return grid


class NiftiVolume:
    """Slices of a NIfTI file; a compressed one is unpacked into a temporary file, so that neither kind fills memory.

    Args:
        path (Path): NIfTI file.
        plane (Plane): Plane of the slices.

    Attributes:
        shape (tuple[int, int, int]): Number of slices, height, width.

    Raises:
        ImageFileError: If the file is damaged, there is no space to unpack it, or no voxel is a finite number.
    """

    def __init__(self, path: Path, plane: Plane) -> None:
        self.grid = read_grid(path)
        self.shape = self.grid.shape_in(plane)
        self._plane = plane
        self._source: Path | IO[bytes] = path
        self._offset = self.grid.offset
        if _is_packed(path):
            self._source, self._offset = in_temporary_file(_content(path, self.grid), ImageFileError), 0
            weakref.finalize(self, self._source.close)
        self._own_window = self._find_window()

    def read(self, index: int, window: Window | None) -> Decoded:
        """Return a slice.

        Args:
            index (int): Number of the slice, from 0.
            window (Window | None): Range to show; None takes that of the whole volume (see
                :func:`anomalib_mediclip.io.windows.window_of`).

        Returns:
            Decoded: Pixels ``(H, W, 1)`` with the slope and the intercept of the file applied.
        """
        return Decoded(self._scaled(self._slices()[index])[..., None], window or self._own_window)

    def _slices(self) -> npt.NDArray[Any]:
        """Map the stored numbers anew, because the pages of a mapping that was read stay in memory."""
        stored = np.memmap(self._source, self.grid.dtype, "r", self._offset, self.grid.shape, order="F")
        return to_slices(stored, self.grid.affine, self._plane)

    def _scaled(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Apply slope and intercept."""
        values = stored.astype(np.float64)
        return (
            values
            if (self.grid.slope, self.grid.intercept) == (1, 0)
            else values * self.grid.slope + self.grid.intercept
        )

    def _find_window(self) -> Window:
        """Return the range of the volume, from a part of the voxels if there are many."""
        step, slices = sampling_step(self.shape), self._slices()
        window = window_of(self._scaled(slices[::step, ::step, ::step]))
        # rare finite voxels may all lie between the sampled ones
        window = window or next(filter(None, (window_of(self._scaled(one)) for one in slices)), None)
        if window is None:
            msg = "no voxel is a finite number (all are NaN or infinite): write the volume again from its source"
            raise ImageFileError(msg)
        return window


def check_same_grid(image: Path, mask: Path) -> None:
    """Check that a mask has the voxels of its image.

    Args:
        image (Path): NIfTI file.
        mask (Path): NIfTI file of its mask.

    Raises:
        ImageFileError: If size or affine matrix differ, or one of the files is damaged.
    """
    first, second = read_grid(image), read_grid(mask)
    tolerance = 1e-3 * float(np.abs(first.affine[:3, :3]).max())
    if first.shape != second.shape or not np.allclose(first.affine, second.affine, rtol=0, atol=max(tolerance, 1e-3)):
        sizes = " and ".join("x".join(map(str, grid.shape)) for grid in (first, second))
        msg = (
            f"mask {mask} does not lie on the voxels of {image} ({sizes} voxels, or another affine matrix): resample "
            "it onto the image"
        )
        raise ImageFileError(msg)


def _header(head: bytes) -> Any:
    """Return the header as nibabel reads it; extensions are not looked at."""
    is_first = 348 in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    return nib.Nifti1Header(head[:348], check=False) if is_first else nib.Nifti2Header(head[:540], check=False)


def _damaged(part: str) -> str:
    """Return the message about a damaged file."""
    return f"{part} of this NIfTI file is truncated or damaged; copy the file again from where it came"


def _spatial(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the three sizes in space, and refuse several volumes."""
    if not shape or min(shape) < 1:
        raise ImageFileError(_damaged("the header"))
    if math.prod(shape[3:]) > 1:
        msg = (
            f"it holds {math.prod(shape[3:])} volumes (size {'x'.join(map(str, shape))}): save the one to look at as a "
            "file of its own, in Python by nibabel.load(file).slicer[..., 0].to_filename(new_file)"
        )
        raise ImageFileError(msg)
    sizes = (*(int(size) for size in shape[:3]), 1, 1)
    return sizes[0], sizes[1], sizes[2]


def _check_numbers(grid: Grid) -> None:
    """Refuse colours, complex numbers, and a slope that hides everything."""
    if grid.dtype.names or grid.dtype.kind not in "iuf":
        msg = "a NIfTI of colours, complex numbers or bits is not supported: save it as grey numbers"
        raise ImageFileError(msg)
    if not (math.isfinite(grid.slope) and math.isfinite(grid.intercept)):
        raise ImageFileError(_damaged("the scale in the header"))


def _check_affine(affine: npt.NDArray[np.float64]) -> None:
    """Refuse an affine matrix that does not tell the axes."""
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    is_regular = np.isfinite(affine).all() and (lengths > 0).all() and abs(np.linalg.det(axes / lengths)) > 1e-6
    if not is_regular or np.isnan(io_orientation(affine)).any():
        msg = (
            "its affine matrix is singular, so that nobody can tell the sides of the patient: correct sform or qform "
            "in the header"
        )
        raise ImageFileError(msg)


def _check_size(grid: Grid, bytes_in_file: int, is_packed: bool) -> None:
    """Refuse a volume that is too large, or larger than its file can hold."""
    megavoxels = math.prod(grid.shape) / 1e6
    try:
        limit = LARGEST * max_megapixels()
    except ValueError as error:
        raise ImageFileError(error) from error
    if megavoxels > limit:
        msg = (
            f"{'x'.join(map(str, grid.shape))} voxels are {megavoxels:.0f} million, and the limit is {limit:g}: cut or "
            f"resample the volume, or raise the limit by --max_megapixels, in Python by the environment variable "
            f"{VARIABLE} (a volume may have {LARGEST} times as many)"
        )
        raise ImageFileError(msg)
    needed = grid.offset + math.prod(grid.shape) * grid.dtype.itemsize
    if grid.offset < 0 or needed > bytes_in_file * (_GZIP_RATIO if is_packed else 1):
        msg = f"truncated: it has {bytes_in_file} bytes, its header promises {needed}; copy it again from where it came"
        raise ImageFileError(msg)


def _is_packed(path: Path) -> bool:
    """Tell whether a file is compressed."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def _content(path: Path, grid: Grid) -> Iterator[bytes]:
    """Yield the stored numbers of a compressed volume, part by part."""
    left = math.prod(grid.shape) * grid.dtype.itemsize
    try:
        with gzip.open(path) as file:
            file.seek(grid.offset)
            while left and (part := file.read(min(_CHUNK, left))):
                left -= len(part)
                yield part
    except Exception as error:  # gzip and zlib raise several kinds
        raise ImageFileError(_damaged("the content")) from error
    if left:
        raise ImageFileError(_damaged("the content"))
