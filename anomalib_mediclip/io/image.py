# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading of images at their full depth.

``Image.convert("RGB")``, which anomalib uses, saturates images of more than 8 bits a channel: a 12-bit radiograph
stored in a 16-bit PNG becomes white. Here such images are stretched linearly from their own range instead.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import median_filter

from anomalib_mediclip.io.decoding import decode

DEFECTIVE = 1e-3  # largest part of the pixels, at either end of the values, that may be defects


def read_image(path: str | Path) -> torch.Tensor:
    """Read the first frame of an image as RGB, as a viewer shows it.

    Grey, palette, 1-bit and CMYK images are converted; transparent pixels are composited over black, and an alpha
    channel that is zero everywhere is ignored. The EXIF orientation is honoured. Images of more than 8 bits a channel,
    or of signed or floating point numbers, are mapped linearly to [0, 1] (see :func:`stretch`). An image of more than
    16.7 megapixels is reduced by a whole factor.

    Args:
        path (str | Path): Image file.

    Returns:
        torch.Tensor: RGB image of shape ``(3, H, W)``, float32 in [0, 1].

    Raises:
        FileNotFoundError: If there is no such file.
        ImageFileError: If the file is empty, truncated, damaged, too large, not an image or of a kind that is not
            supported.
    """
    pixels = decode(path)
    is_deep = pixels.dtype != np.uint8
    channels_first = np.array((stretch(pixels) if is_deep else pixels).transpose(2, 0, 1), order="C")
    image = torch.from_numpy(channels_first).float()
    return (image if is_deep else image.div_(255)).expand(3, -1, -1).contiguous()


def stretch(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Map the range of an image linearly to [0, 1], whatever single defective pixels hold.

    The range is that of all finite pixels, over all channels together. Only where the lowest or highest thousandth of
    them lies farther from the rest than the rest is wide, these pixels are taken for defects: they do not count for
    the range, and each takes the median of its neighbourhood of 3 x 3 pixels, clipped to [0, 1]. Pixels that are not
    finite take the minimum. A constant image becomes zeros.

    Args:
        pixels (np.ndarray): Pixels ``(H, W, C)`` in any unit.

    Returns:
        np.ndarray: Pixels in [0, 1], float64.

    Example:
        >>> stretch(np.array([[[1000], [2000], [3000]]])).ravel().tolist()
        [0.0, 0.5, 1.0]
    """
    values = pixels.astype(np.float64)
    finite = np.isfinite(values)
    low, high = _range(values[finite])
    values = np.where(finite, values, low)
    outside = (values < low) | (values > high)
    if outside.any():
        values[outside] = median_filter(values, size=(3, 3, 1))[outside]
    if high == low:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0, 1)


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return minimum and maximum without defects."""
    if not values.size:
        return 0.0, 0.0
    lowest, inner_low, inner_high, highest = np.quantile(values, (0, DEFECTIVE, 1 - DEFECTIVE, 1))
    width = inner_high - inner_low
    if width > 0 and inner_low - lowest > width:
        lowest = values[values >= inner_low - width].min()
    if width > 0 and highest - inner_high > width:
        highest = values[values <= inner_high + width].max()
    return float(lowest), float(highest)
