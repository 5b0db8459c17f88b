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
from anomalib_mediclip.io.windows import show

DEFECTIVE = 1e-3  # largest part of the pixels, at either end of the values, that may be defects


def read_image(path: str | Path) -> torch.Tensor:
    """Read the first frame of an image, or a slice of a volume, as RGB, as a viewer shows it.

    Grey, palette, 1-bit and CMYK images are converted; transparent pixels are composited over black, and an alpha
    channel that is zero everywhere is ignored. The EXIF orientation is honoured. Images of more than 8 bits a channel,
    or of signed or floating point numbers, are mapped linearly to [0, 1] (see :func:`stretch`). An image of more than
    16.7 megapixels is reduced by a whole factor.

    Grey DICOM and NIfTI are shown in the window that the user has chosen (see :mod:`anomalib_mediclip.display`).
    Without one, DICOM takes the window of the file, and what has none is stretched; a volume is shown from the 0.5th to
    the 99.5th percentile of its voxels.

    Args:
        path (str | Path): Image file; or slice of a volume, which is a path below its file, such as
            ``scan.nii.gz/0012`` (see :func:`anomalib_mediclip.io.slices_of`).

    Returns:
        torch.Tensor: RGB image of shape ``(3, H, W)``, float32 in [0, 1].

    Raises:
        FileNotFoundError: If there is no such file.
        ImageFileError: If the file is empty, truncated, damaged, too large, not an image or of a kind that is not
            supported.
    """
    pixels, window = decode(path)
    if window is not None:
        pixels = show(pixels, window)
    elif pixels.dtype != np.uint8:
        pixels = stretch(pixels)
    image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")).float()
    return (image.div_(255) if pixels.dtype == np.uint8 else image).expand(3, -1, -1).contiguous()


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
