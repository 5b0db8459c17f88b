# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Windows: which range of the values of an image is shown from black to white."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

PERCENTILES = (0.5, 99.5)
SAMPLE = 2**21  # voxels, at most, from which the range of a volume is computed


class Window(NamedTuple):
    """Range of values that is shown.

    Attributes:
        low (float): Value shown black, in the unit of the image.
        high (float): Value shown white; not below ``low``.
    """

    low: float
    high: float


class Decoded(NamedTuple):
    """Pixels of an image, and how they are shown.

    Attributes:
        pixels (np.ndarray): Pixels ``(H, W, 1 or 3)``, RGB: uint8, or another type in the unit of the file.
        window (Window | None): Range to show; None if the whole range of uint8, or of the pixels of another type.
    """

    pixels: npt.NDArray[Any]
    window: Window | None = None


def show(pixels: npt.NDArray[Any], window: Window) -> npt.NDArray[np.float64]:
    """Map a window linearly to [0, 1].

    Values outside are clipped, NaN is black. A window without width shows what is above it white.

    Args:
        pixels (np.ndarray): Values in the unit of the window.
        window (Window): Range that is shown.

    Returns:
        np.ndarray: Values in [0, 1] of the same shape, float64.

    Example:
        >>> show(np.array([-10, 0, 20, 80, 90]), Window(0, 80)).tolist()
        [0.0, 0.0, 0.25, 1.0, 1.0]
    """
    values = np.nan_to_num(pixels.astype(np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    low, high = window
    if high <= low:
        return (values > low).astype(np.float64)
    return (np.clip(values, low, high) - low) / (high - low)


def window_of(sample: npt.NDArray[Any]) -> Window | None:
    """Return the window of a volume for which nobody has chosen one.

    Args:
        sample (np.ndarray): Values of the volume, all or a part of them.

    Returns:
        Window | None: From the 0.5th to the 99.5th percentile of the finite values; from the lowest to the highest
            where the percentiles are equal, as in a volume that is nearly empty. None without finite values.

    Example:
        >>> window_of(np.arange(1001.0))
        Window(low=5.0, high=995.0)
    """
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, PERCENTILES)
    return Window(float(low), float(high)) if high > low else Window(float(finite.min()), float(finite.max()))


def sampling_step(shape: tuple[int, int, int]) -> int:
    """Return the step along each axis by which at most ``SAMPLE`` voxels of a volume are taken.

    Args:
        shape (tuple[int, int, int]): Size of the volume in voxels.

    Returns:
        int: Step, 1 for volumes of at most 2.1 million voxels.

    Example:
        >>> sampling_step((500, 512, 512))
        4
    """
    return int(np.ceil((np.prod(shape, dtype=np.float64) / SAMPLE) ** (1 / 3)))
