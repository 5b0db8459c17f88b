# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Interpolation between pixels, shared by the tasks that move pixels."""

import cv2
import numpy as np
from scipy.ndimage import map_coordinates, spline_filter

from anomalib_mediclip.synthesis.masks import Array, Positions

# The filter is recursive: so many repetitions of the border and what lies beyond it has no effect in float32.
MARGIN = 12


class Spline:
    """Cubic spline through the pixels of an image: filtered once, read any number of times.

    Args:
        image (Array): Image of shape ``(H, W, C)``.

    Attributes:
        size (tuple[int, int]): Height and width of the image in pixels.
        range (tuple[float, float]): Lowest and highest value of the image.
    """

    def __init__(self, image: Array) -> None:
        self.size = image.shape[0], image.shape[1]
        self.range = image.min(), image.max()
        self._coefficients = [
            spline_filter(
                cv2.copyMakeBorder(channel, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE), mode="nearest"
            )
            for channel in np.moveaxis(image, 2, 0)
        ]

    def sample(self, positions: Positions) -> Array:
        """Read the image between its pixels.

        Args:
            positions (Positions): Rows and columns to read at, ``(2, ...)``, in pixels. Beyond the border
                the nearest pixel counts.

        Returns:
            Array: Values of shape ``(..., C)``, float32. Near edges splines overshoot the range of the image.
        """
        shifted = positions + MARGIN
        channels = [
            map_coordinates(coefficients, shifted, np.float32, order=3, mode="nearest", prefilter=False)
            for coefficients in self._coefficients
        ]
        return np.stack(channels, axis=-1)
