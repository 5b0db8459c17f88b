# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Orientation of stored pixels (EXIF tag 274), which viewers honour."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

TAG = 274
UPRIGHT = 1

_TURNS: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def upright(stored: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn stored pixels as a viewer shows them.

    Args:
        stored (np.ndarray): Pixels ``(H, W)`` or ``(H, W, C)``.
        orientation (int): Value of the EXIF tag, 1 to 8; any other counts as 1.

    Returns:
        np.ndarray: View of the pixels.

    Example:
        >>> upright(np.array([[1, 2, 3]]), 6).tolist()
        [[1], [2], [3]]
    """
    return _TURNS[orientation](stored) if orientation in _TURNS else stored


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return height and width after turning.

    Args:
        size (tuple[int, int]): Stored height and width in pixels.
        orientation (int): Value of the EXIF tag.

    Returns:
        tuple[int, int]: Height and width in pixels.
    """
    return (size[1], size[0]) if orientation in {5, 6, 7, 8} else size


def orientation_of(image: Image.Image, mentions_late_exif: bool = True) -> int:
    """Return the orientation that an image of Pillow has in its EXIF or XMP data.

    Args:
        image (Image.Image): Opened image.
        mentions_late_exif (bool, optional): Whether a PNG may have its EXIF data after its pixels, which are decoded to
            find out. Defaults to ``True``.

    Returns:
        int: Value of the tag; 1 without one, or if the data are damaged.
    """
    try:
        exif = image.getexif() if mentions_late_exif else Image.Image.getexif(image)
        value = exif.get(TAG, UPRIGHT)
    except (SyntaxError, ValueError, TypeError, LookupError, EOFError):  # EXIF that is damaged must cost no image
        return UPRIGHT
    return value if isinstance(value, int) and value in _TURNS else UPRIGHT
