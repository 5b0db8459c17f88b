# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Interpolation between pixels, shared by the tasks that move pixels."""

import numpy as np
from scipy.ndimage import map_coordinates

from anomalib_mediclip.synthesis.masks import Array, Positions


def sample_cubic(image: Array, positions: Positions) -> Array:
    """Read an image between its pixels with cubic splines.

    Args:
        image (Array): Image of shape ``(H, W, C)``.
        positions (Positions): Rows and columns to read at, ``(2, ...)``, in pixels. Beyond the border
            the nearest pixel counts.

    Returns:
        Array: Values of shape ``(..., C)``. Near edges splines overshoot the range of the image.
    """
    channels = [map_coordinates(c, positions, np.float32, order=3, mode="nearest") for c in np.moveaxis(image, 2, 0)]
    return np.stack(channels, axis=-1)
