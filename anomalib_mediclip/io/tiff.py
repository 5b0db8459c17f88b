# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""TIFF images that Pillow reads wrongly or not at all: more than 8 bits a channel, signed, floating point."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile
from tifffile import PHOTOMETRIC, SAMPLEFORMAT, TiffFile, TiffPage

from anomalib_mediclip.io.errors import ImageFileError, not_supported
from anomalib_mediclip.io.orientation import TAG, UPRIGHT, upright_size

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs, several times, what becomes one error here

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOURS = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.SEPARATED: 4,
}
_COMPRESSIONS_OF_PILLOW = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946)
_SIMPLE = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
_WITH_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


class TiffHeader(NamedTuple):
    """What the header of a TIFF says.

    Attributes:
        size (tuple[int, int]): Height and width of the upright image in pixels.
        frames (int): Number of images in the file.
        fits_pillow (bool): Whether Pillow reads it rightly: unsigned integers of at most 8 bits, in a common
            compression, without premultiplied alpha.
        is_simple (bool): Whether it is grey or RGB of 8 bits, without an alpha channel.
        orientation (int): Orientation of the stored pixels.
        has_alpha (bool): Whether there is an alpha channel.
    """

    size: tuple[int, int]
    frames: int
    fits_pillow: bool
    is_simple: bool
    orientation: int
    has_alpha: bool


def is_tiff(path: Path) -> bool:
    """Tell a TIFF by its first bytes.

    Args:
        path (Path): File.

    Returns:
        bool: Whether it is a TIFF or BigTIFF.
    """
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def read_header(path: Path) -> TiffHeader:
    """Read what the first image of a TIFF is.

    Args:
        path (Path): TIFF.

    Returns:
        TiffHeader: Header of the first image.
    """
    with TiffFile(path) as file:
        page: Any = file.pages[0]
        bits = page.bitspersample
        deepest = max(bits) if isinstance(bits, tuple) else bits
        unsigned = page.sampleformat in {SAMPLEFORMAT.UINT, SAMPLEFORMAT.VOID}
        orientation = _orientation(page)
        return TiffHeader(
            size=upright_size((page.imagelength, page.imagewidth), orientation),
            frames=len(file.pages),
            fits_pillow=deepest <= 8 and unsigned and _fits_pillow(page),
            is_simple=bits == 8 and unsigned and page.photometric in _SIMPLE and not page.extrasamples,
            orientation=orientation,
            has_alpha=any(sample in _WITH_ALPHA for sample in page.extrasamples),
        )


def read_stored(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """Read the first image of a TIFF as it is stored, in its own unit.

    Args:
        path (Path): TIFF.

    Returns:
        tuple[np.ndarray, np.ndarray | None]: Grey or RGB pixels ``(H, W, 1 or 3)``, where larger is brighter, and the
            factors in [0, 1], ``(H, W, 1)``, by which an alpha channel multiplies them.

    Raises:
        ImageFileError: If it is no grey, RGB or CMYK image.
    """
    with TiffFile(path) as file:
        page: Any = file.pages[0]
        colours = _COLOURS.get(page.photometric)
        if colours is None or page.dtype is None or page.dtype.kind == "c" or page.imagedepth > 1:
            msg = not_supported(f"a TIFF of this kind ({_kind(page)})")
            raise ImageFileError(msg)
        stored = _channels_last(page)
        extra, bits = tuple(page.extrasamples), page.bitspersample
    if bits < 8:
        stored = stored.astype(np.uint8) * np.uint8(255 // (2**bits - 1))
    is_known = len(extra) <= 1 and (colours > 1 or not extra or extra[0] in _WITH_ALPHA)
    if stored.shape[2] != colours + len(extra) or not is_known:
        msg = not_supported(f"a TIFF of {stored.shape[2]} channels")
        raise ImageFileError(msg)
    has_alpha = bool(extra) and extra[0] in _WITH_ALPHA
    alpha = stored[..., colours : colours + 1] if has_alpha else None
    pixels = _brighter_is_larger(stored[..., :colours], page.photometric)
    if alpha is None:
        return pixels, None
    factor = (alpha / np.float32(_full_scale(alpha.dtype))).astype(np.float32)
    is_multiplied = extra[0] == tifffile.EXTRASAMPLE.ASSOCALPHA
    return pixels, (factor > 0).astype(np.float32) if is_multiplied else factor


def _fits_pillow(page: TiffPage) -> bool:
    """Tell whether Pillow knows the compression, and divides by no alpha."""
    return page.compression in _COMPRESSIONS_OF_PILLOW and tifffile.EXTRASAMPLE.ASSOCALPHA not in page.extrasamples


def _orientation(page: TiffPage) -> int:
    """Return the orientation of a page."""
    tag = page.tags.get(TAG)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else UPRIGHT


def _kind(page: TiffPage) -> str:
    """Describe a page that is not supported."""
    photometric = getattr(page.photometric, "name", page.photometric)
    return f"{photometric}, {page.dtype or 'unknown numbers'}"


def _channels_last(page: TiffPage) -> npt.NDArray[Any]:
    """Return the pixels of a page as ``(H, W, C)``."""
    pixels, axes = page.asarray(), page.axes
    if axes == "YX":
        return pixels[..., None]
    if axes == "SYX":
        return np.moveaxis(pixels, 0, -1)
    if axes != "YXS":
        msg = not_supported(f"a TIFF with the axes {axes}")
        raise ImageFileError(msg)
    return pixels


def _brighter_is_larger(pixels: npt.NDArray[Any], photometric: int) -> npt.NDArray[Any]:
    """Turn inverted grey and ink into brightness."""
    if photometric == PHOTOMETRIC.MINISWHITE:
        top = _full_scale(pixels.dtype) if pixels.dtype.kind == "u" else pixels.max()
        return (top - pixels).astype(pixels.dtype)
    if photometric == PHOTOMETRIC.SEPARATED:
        full = np.float64(_full_scale(pixels.dtype))
        return (full - pixels[..., :3]) * (full - pixels[..., 3:]) / full
    return pixels


def _full_scale(dtype: np.dtype[Any]) -> float:
    """Return the largest value of integers, 1 for floating point numbers."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
