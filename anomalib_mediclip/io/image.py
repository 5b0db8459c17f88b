# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading of images and masks through Pillow, at their full depth.

``Image.convert("RGB")``, which anomalib uses, saturates images of more than 8 bits a channel: a 12-bit radiograph
stored in a 16-bit PNG becomes white. Here such images are stretched linearly from their own range instead, and every
file that cannot be decoded is named together with a cure.
"""

import logging
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

logger = logging.getLogger(__name__)

ASPECT_RATIO_TOLERANCE = 0.01

# What Pillow's decoders raise on damaged files, beside OSError.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)


def read_image(path: str | Path) -> torch.Tensor:
    """Read the first frame of an image as RGB.

    Grey, palette, 1-bit and CMYK images are converted; transparent pixels are composited over black. Images of more
    than 8 bits a channel (integer or floating point) are mapped linearly from their own [minimum, maximum] to [0, 1],
    over all channels together; a constant one becomes zeros, and pixels that are not finite take the minimum. The EXIF
    orientation is ignored, as anomalib's visualiser ignores it.

    Args:
        path (str | Path): Image file.

    Returns:
        torch.Tensor: RGB image of shape ``(3, H, W)``, float32 in [0, 1].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, truncated, damaged, too large or not an image.
    """
    pixels = _read_pixels(Path(path))
    scaled = pixels / np.float32(255) if pixels.dtype == np.uint8 else _stretch(pixels)
    return torch.from_numpy(scaled.astype(np.float32, copy=False)).permute(2, 0, 1).contiguous()


def read_mask(paths: Sequence[str | Path], size: tuple[int, int]) -> torch.Tensor:
    """Read the union of the masks of one image.

    A pixel is lesion where its largest channel exceeds half of the maximum of its mask. (The official code takes every
    pixel that is not zero, which makes the ringing around the edges of a mask stored as JPEG lesion too.) Label maps
    with one grey level for each kind of lesion must therefore be made binary first.

    Args:
        paths (Sequence[str | Path]): One or more mask files of the image.
        size (tuple[int, int]): Height and width of the image in pixels. A mask of another size is resized (nearest
            neighbour) if its aspect ratio is the same within 1 %.

    Returns:
        torch.Tensor: Mask of shape ``(H, W)``, float32, 0 or 1.

    Raises:
        ValueError: If there is no mask, a file cannot be decoded, a mask is empty or its aspect ratio differs.
    """
    if not paths:
        msg = "no mask files given: pass at least one path, or use a zero mask"
        raise ValueError(msg)
    return torch.stack([_read_one_mask(Path(path), size) for path in paths]).amax(dim=0)


def is_deep(path: str | Path) -> bool:
    """Tell from the header alone whether an image has more than 8 bits a channel.

    Args:
        path (str | Path): Image file.

    Returns:
        bool: True for 16-bit, 32-bit and floating point images.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the header cannot be read.
    """
    with _opened(Path(path)) as image:
        return image.mode.startswith(("I", "F")) or _is_deep_colour(image)


def has_transparency(path: str | Path) -> bool:
    """Tell from the header alone whether an image has transparent pixels.

    Args:
        path (str | Path): Image file.

    Returns:
        bool: True for images with an alpha channel or a transparent colour.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the header cannot be read.
    """
    with _opened(Path(path)) as image:
        return image.has_transparency_data


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file and turn whatever its decoding raises into an error that names the file."""
    if not path.is_file():
        msg = f"no image file {path}: check the path"
        raise FileNotFoundError(msg)
    if path.stat().st_size == 0:
        msg = f"cannot read {path}: the file is empty (0 bytes); delete or re-download it"
        raise ValueError(msg)
    try:
        with Image.open(path) as image:
            yield image
    except PermissionError:
        raise
    except Image.DecompressionBombError as error:
        msg = f"cannot read {path}: {error}; reduce the image first, or raise PIL.Image.MAX_IMAGE_PIXELS"
        raise ValueError(msg) from error
    except Image.UnidentifiedImageError as error:
        msg = f"cannot read {path}: not an image, or its header is damaged; delete or re-download it"
        raise ValueError(msg) from error
    except _DECODER_ERRORS as error:
        msg = f"cannot read {path}: truncated or damaged ({error}); delete or re-download it"
        raise ValueError(msg) from error


def _read_pixels(path: Path) -> np.ndarray:
    """Return the pixels ``(H, W, 3)``: uint8, or float64 in their own unit if there are more than 8 bits a channel."""
    with _opened(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            logger.warning("%s holds %d frames; only the first is used", path, frames)
            image.seek(0)  # counting may have moved on
        if image.mode.startswith(("I", "F")):
            return np.repeat(np.asarray(image, dtype=np.float64)[..., None], 3, axis=2)
        if _is_deep_colour(image):
            return _read_deep_colour(path)
        return np.asarray(_to_rgb(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit image of any mode to RGB."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")


def _is_deep_colour(image: Image.Image) -> bool:
    """Tell whether Pillow would drop the lower half of 16-bit channels (it has no mode for 16-bit colour)."""
    codec, _, _, arguments = next(iter(getattr(image, "tile", [])), (None, None, None, None))
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    if codec in {"ppm", "ppm_plain"}:
        return bool(arguments[1] > np.iinfo(np.uint8).max)  # the maximum that the header declares
    # the byte order sets "RGB;16B" (16 bits a channel) apart from "BGR;16" (16 bits a pixel)
    return re.search(r";16[BLN]", str(arguments[:1])) is not None


def _read_deep_colour(path: Path) -> np.ndarray:
    """Read 16-bit grey-alpha, RGB or RGBA through OpenCV, transparent pixels composited over black."""
    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        msg = "OpenCV cannot decode this 16-bit colour image"
        raise ValueError(msg)
    values = np.atleast_3d(pixels).astype(np.float64)
    if values.shape[2] in {2, 4}:
        values = values[..., :-1] * (values[..., -1:] / np.iinfo(np.uint16).max)
    return np.ascontiguousarray(np.broadcast_to(values[..., ::-1], (*values.shape[:2], 3)))


def _stretch(pixels: np.ndarray) -> np.ndarray:
    """Map the finite pixels linearly from [minimum, maximum] to [0, 1]; the others become 0."""
    finite = np.isfinite(pixels)
    low, high = (pixels[finite].min(), pixels[finite].max()) if finite.any() else (0.0, 0.0)
    if high == low:
        return np.zeros_like(pixels)
    return (np.where(finite, pixels, low) - low) / (high - low)


def _read_one_mask(path: Path, size: tuple[int, int]) -> torch.Tensor:
    """Return one mask ``(H, W)`` of ``size``, float32, 0 or 1."""
    values = torch.from_numpy(np.nan_to_num(_read_pixels(path).max(axis=2).astype(np.float64)))
    if values.max() <= 0:
        msg = f"mask {path} is empty (all zero): delete it, or draw the lesion in it"
        raise ValueError(msg)
    mask = (values > values.max() / 2).float()
    if tuple(mask.shape) == tuple(size):
        return mask
    height, width = mask.shape
    if abs((width / height) / (size[1] / size[0]) - 1) > ASPECT_RATIO_TOLERANCE:
        msg = f"mask {path} is {width}x{height} pixels but its image {size[1]}x{size[0]}: use a mask of the same shape"
        raise ValueError(msg)
    return interpolate(mask[None, None], size=tuple(size), mode="nearest-exact")[0, 0]
