# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pixels and headers of image files: which library decodes what, and how large images are kept small.

Pillow decodes what has at most 8 bits a channel. It has no 16-bit colour, which imagecodecs and OpenCV decode, and gets
many deep TIFFs wrong, which tifffile decodes.
"""

import logging
import mmap
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalib_mediclip.io import tiff, volumes
from anomalib_mediclip.io.errors import ImageFileError, named, not_supported
from anomalib_mediclip.io.orientation import UPRIGHT, orientation_of, upright, upright_size
from anomalib_mediclip.io.windows import Decoded
from anomalib_mediclip.limits import VARIABLE, max_megapixels

logger = logging.getLogger(__name__)

LARGE = 2**24  # pixels of an image that is read at reduced size: 0.2 GB of float32 RGB
_STRIP = 2**20  # pixels that are converted at a time

_limit = threading.RLock()


class Header(NamedTuple):
    """What is known of an image before it is decoded.

    Attributes:
        size (tuple[int, int]): Height and width in pixels of the upright image, at its full size.
        orientation (int): Value of the EXIF tag, 1 for an image that is stored upright.
        is_plain (bool): Whether Pillow's ``convert("RGB")`` gives the right pixels: 8 bits, opaque, stored upright.
    """

    size: tuple[int, int]
    orientation: int
    is_plain: bool


def read_header(path: str | Path) -> Header:
    """Read size and kind of an image from its header.

    Args:
        path (str | Path): Image file, or slice of a volume.

    Returns:
        Header: What the header says.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageFileError: If the header cannot be read or the image is too large.
    """
    path = Path(path)
    file, _ = volumes.file_of(path)
    with named(path, file):
        if volumes.is_medical(file):
            size = volumes.size_of(path)
            _check_size(*size)
            return Header(size, UPRIGHT, is_plain=False)
        if tiff.is_tiff(path):
            header = tiff.read_header(path)
            _check_size(*header.size)
            is_plain = header.fits_pillow and not header.has_alpha
            return Header(header.size, header.orientation, is_plain and header.orientation == 1)
        with _opened(path) as image:
            late = image.format != "PNG" or _mentions(path, b"eXIf")
            orientation = orientation_of(image, mentions_late_exif=late)
            is_deep = image.mode.startswith(("I", "F")) or _is_deep_colour(image)
            is_plain = not is_deep and not image.has_transparency_data and orientation == 1
            return Header(upright_size((image.height, image.width), orientation), orientation, is_plain)


def decode(path: str | Path, smooth: bool = True) -> Decoded:
    """Decode the first image of a file, upright, or a slice of a volume.

    Transparent pixels are composited over black; an alpha channel that is zero everywhere is ignored. An image of more
    than 16.7 megapixels is reduced by the smallest whole factor that brings it below.

    Args:
        path (str | Path): Image file, or slice of a volume.
        smooth (bool, optional): Whether the pixels of a large image are averaged; otherwise some are left out, as
            masks need. Defaults to ``True``.

    Returns:
        Decoded: Pixels ``(H, W, 1 or 3)``, RGB: uint8, or another type in the unit of the file if it has more than 8
            bits a channel, signed or floating point numbers; and the window of DICOM and NIfTI.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageFileError: If the file is damaged, of a kind that is not supported, or too large.
    """
    path = Path(path)
    file, _ = volumes.file_of(path)
    with named(path, file):
        if volumes.is_medical(file):
            return _decode_medical(path, smooth)
        return Decoded(_decode_picture(path, smooth))


def _decode_medical(path: Path, smooth: bool) -> Decoded:
    """Decode a DICOM image, or a slice of a volume."""
    _check_size(*volumes.size_of(path))
    pixels, window = volumes.read_slice(path)
    return Decoded(_over_black(path, pixels, None, 1.0, smooth), window)


def _decode_picture(path: Path, smooth: bool) -> npt.NDArray[Any]:
    """Decode what is neither DICOM nor NIfTI."""
    if not tiff.is_tiff(path):
        return _decode_with_pillow(path, smooth)
    header = tiff.read_header(path)
    _check_size(*header.size)
    _announce_frames(path, header.frames)
    is_large = _factor(*header.size) > 1 and header.is_simple  # Pillow needs a third more memory
    if header.fits_pillow and not is_large:
        with suppress(Image.UnidentifiedImageError):  # Pillow does not know all kinds of 8 bits
            return _decode_with_pillow(path, smooth)
    return upright(_decode_tiff(path, smooth), header.orientation)


@lru_cache(maxsize=4096)
def warn_once(message: str) -> None:
    """Log a warning, unless the same has been logged before.

    Args:
        message (str): Warning.
    """
    logger.warning(message)


def _check_size(height: int, width: int) -> None:
    """Refuse an image that would fill the memory, as a damaged header may promise."""
    megapixels = height * width / 1e6
    try:
        limit = max_megapixels()
    except ValueError as error:  # no fault of the file
        raise ImageFileError(error) from error
    if megapixels > limit:
        msg = (
            f"{width}x{height} pixels are {megapixels:.1f} megapixels, and the limit is {limit:g}: reduce "
            f"the image first, or raise the limit by --max_megapixels, in Python by the environment variable {VARIABLE}"
        )
        raise ImageFileError(msg)


def _announce_frames(path: Path, frames: int) -> None:
    """Say that a file holds more than what is read."""
    if frames > 1:
        warn_once(f"{path} holds {frames} frames; only the first is used")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an image with Pillow.

    It gets an open file: given a path, it maps uncompressed pixels into memory, and scrambles turned ones.
    """
    with path.open("rb") as file:
        with _without_limit():
            image = Image.open(file)
        _check_size(image.height, image.width)
        # large images are decoded one at a time, which bounds the memory as well
        with image, _without_limit() if _factor(image.height, image.width) > 1 else nullcontext():
            yield image


@contextmanager
def _without_limit() -> Iterator[None]:
    """Suspend Pillow's own limit of size: ours is the one that counts, and it can be set."""
    with _limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _mentions(path: Path, text: bytes) -> bool:
    """Tell whether bytes occur in a file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def _decode_with_pillow(path: Path, smooth: bool) -> npt.NDArray[Any]:
    """Decode all that is no deep TIFF."""
    with _opened(path) as image:
        frames = getattr(image, "n_frames", 1)
        _announce_frames(path, frames)
        if frames > 1:
            image.seek(0)  # counting may have moved on
        factor = _factor(image.height, image.width)
        is_png = image.format == "PNG"
        is_deep_colour = not image.mode.startswith(("I", "F")) and _is_deep_colour(image)
        if is_deep_colour or (factor > 1 and is_png and image.mode in {"RGB", "RGBA"}):
            pixels = _decode_colour(path, is_png, smooth)  # for large PNGs it needs less memory
        else:
            if factor > 1:
                image.draft(image.mode, (image.width // factor, image.height // factor))
            pixels = _reduced(_converter(image, path), image.height, image.width, smooth)
        return upright(pixels, orientation_of(image))


def _converter(image: Image.Image, path: Path) -> Callable[[int, int], npt.NDArray[Any]]:
    """Return a function that gives rows of an image as an array."""
    image.load()
    composite = image.has_transparency_data and not _is_transparent(image, path)

    def convert(top: int, bottom: int) -> npt.NDArray[Any]:
        whole = (top, bottom) == (0, image.height)
        strip = image if whole else image.crop((0, top, image.width, bottom))
        if image.mode.startswith(("I", "F")):
            return np.asarray(strip)[..., None]
        if not composite:
            opaque = strip.convert("RGBA") if image.mode == "RGBa" else strip
            return np.asarray(opaque.convert("RGB"))
        black = Image.new("RGBA", strip.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, strip.convert("RGBA")).convert("RGB"))

    return convert


def _is_transparent(image: Image.Image, path: Path) -> bool:
    """Tell whether the alpha channel hides all of an image, which only a mistake of its writer explains."""
    alpha = image.getchannel("A") if "A" in image.getbands() else image.convert("RGBA").getchannel("A")
    if alpha.getextrema() != (0, 0):
        return False
    _announce_alpha(path)
    return True


def _announce_alpha(path: Path) -> None:
    """Say that an alpha channel is ignored."""
    warn_once(f"{path} is transparent everywhere: its alpha channel is ignored")


def _is_deep_colour(image: Any) -> bool:
    """Tell whether Pillow would drop the lower half of 16-bit channels (it has no mode for 16-bit colour)."""
    codec, _, _, arguments = next(iter(getattr(image, "tile", [])), (None, None, None, None))
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    if codec in {"ppm", "ppm_plain"}:
        return bool(arguments[1] > np.iinfo(np.uint8).max)  # the maximum that the header declares
    # the byte order sets "RGB;16B" (16 bits a channel) apart from "BGR;16" (16 bits a pixel)
    return re.search(r";16[BLN]", str(arguments[:1])) is not None


def _decode_colour(path: Path, is_png: bool, smooth: bool) -> npt.NDArray[Any]:
    """Decode 16-bit grey-alpha, RGB or RGBA, and large PNGs."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as encoded:
        stored = np.atleast_3d(imagecodecs.png_decode(encoded) if is_png else _decode_with_opencv(encoded))
    if stored.shape[2] not in {2, 4}:
        return _over_black(path, stored, None, 1.0, smooth)
    full = np.float32(255) if stored.dtype == np.uint8 else np.float64(65535)
    return _over_black(path, stored[..., :-1], stored[..., -1:], full, smooth)


def _decode_with_opencv(encoded: mmap.mmap) -> npt.NDArray[Any]:
    """Decode an image without an alpha channel as grey or RGB."""
    if encoded[:2] == b"P3":
        msg = not_supported("a PPM in plain text with more than 8 bits")
        raise ImageFileError(msg)
    stored = cv2.imdecode(np.frombuffer(encoded[:], dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        msg = "OpenCV cannot decode it"
        raise ValueError(msg)
    return np.atleast_3d(stored)[..., ::-1]


def _decode_tiff(path: Path, smooth: bool) -> npt.NDArray[Any]:
    """Decode a TIFF that Pillow does not read rightly."""
    stored, alpha = tiff.read_stored(path)
    return _over_black(path, stored, alpha, np.float32(1), smooth)


def _over_black(
    path: Path, colours: npt.NDArray[Any], alpha: npt.NDArray[Any] | None, opaque: Any, smooth: bool
) -> npt.NDArray[Any]:
    """Composite decoded pixels over black; ``opaque`` is the value of ``alpha`` of an opaque one."""
    if alpha is not None and not alpha.any():
        _announce_alpha(path)
        alpha = None

    def convert(top: int, bottom: int) -> npt.NDArray[Any]:
        strip = colours[top:bottom]
        if alpha is None:
            return strip
        shown = np.asarray(strip * (alpha[top:bottom] / opaque))
        return np.rint(shown).astype(np.uint8) if colours.dtype == np.uint8 else shown

    return _reduced(convert, colours.shape[0], colours.shape[1], smooth)


def _factor(height: int, width: int) -> int:
    """Return the smallest whole factor that makes an image no larger than ``LARGE``."""
    return max(1, int(np.ceil(np.sqrt(height * width / LARGE))))


def _reduced(
    convert: Callable[[int, int], npt.NDArray[Any]], height: int, width: int, smooth: bool
) -> npt.NDArray[Any]:
    """Convert the rows of an image, strip by strip if it is large, so that no full copy of it is made."""
    factor = _factor(height, width)
    if factor == 1:
        return convert(0, height)
    rows = max(1, _STRIP // width // factor) * factor
    end = height - height % factor
    tops = range(0, end, rows)
    return np.concatenate([_shrink(convert(top, min(top + rows, end)), factor, smooth) for top in tops])


def _shrink(strip: npt.NDArray[Any], factor: int, smooth: bool) -> npt.NDArray[Any]:
    """Reduce rows ``(H, W, C)`` by a whole factor."""
    if not smooth:
        return strip[factor // 2 :: factor, factor // 2 :: factor]
    known = strip if strip.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)} else strip.astype(np.float32)
    size = (strip.shape[1] // factor, strip.shape[0] // factor)
    cut = np.ascontiguousarray(known[:, : size[0] * factor])
    return np.atleast_3d(cv2.resize(cut, size, interpolation=cv2.INTER_AREA))
