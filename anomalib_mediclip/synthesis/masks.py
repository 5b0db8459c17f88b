# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Masks of synthetic anomalies, and where in the image they are placed.

CutPaste and GaussIntensityChange use binarised Perlin noise, Source uses ellipses and rectangles, because it needs the
radius of the mask in every direction (paper, section 3.1, "Implementation Details"). The sizes, which the paper leaves
open, follow the official code as fractions of the image side.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# Images, noise and weights are float32, which the type hints of OpenCV and SciPy cannot tell.
Array = npt.NDArray[Any]
Positions = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Size = tuple[int, int]

# Official code: a Perlin mask is the noise above 0.3, and is drawn again while it covers less than 20 % of its patch.
PERLIN_THRESHOLD = 0.3
MINIMUM_COVER = 0.2
MAXIMUM_DRAWS = 100

# Official code: sides of an ellipse or rectangle, as fractions of the image side.
SHAPE_SIDES = (0.2, 0.6)

FOREGROUND_LEVEL = 0.05
MINIMUM_FOREGROUND = 0.05
MAXIMUM_POSITIONS = 20


@dataclass(frozen=True)
class PerlinNoise:
    """Random parameters of a one-cell Perlin noise patch.

    Attributes:
        size (Size): Height and width of the patch in pixels.
        angles (Array): Directions of the gradients at the four corners of the patch, ``(2, 2)``, in radians.
        degrees (float): Rotation of the noise about the centre of the patch.
    """

    size: Size
    angles: Array
    degrees: float


def draw_perlin_noise(rng: np.random.Generator, size: Size) -> PerlinNoise:
    """Draw gradients in all directions and a rotation between -90 and 90 degrees."""
    angles = rng.uniform(0, 2 * np.pi, size=(2, 2)).astype(np.float32)
    return PerlinNoise(size, angles, degrees=rng.uniform(-90, 90))


def perlin_mask(noise: PerlinNoise) -> Mask:
    """Compute Perlin noise on a lattice of one cell, rotate it and keep what exceeds the threshold.

    Args:
        noise (PerlinNoise): Random parameters.

    Returns:
        Mask: Boolean mask of shape ``(h, w)``, often cut off by a straight edge of the patch.
    """
    height, width = noise.size
    (rows, row_weights), (columns, column_weights) = _corner_weights(height), _corner_weights(width)
    # The noise interpolates, between the corners, the products of gradient and offset: both terms are separable.
    field = (row_weights * rows) @ np.cos(noise.angles) @ column_weights.T
    field += row_weights @ np.sin(noise.angles) @ (column_weights * columns).T
    rotation = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), noise.degrees, 1.0)
    return cv2.warpAffine(np.sqrt(2) * field, rotation, (width, height)) > PERLIN_THRESHOLD


def draw_perlin_mask(rng: np.random.Generator, image_size: Size, sides: tuple[float, float]) -> Mask:
    """Draw a Perlin mask in a patch of random size.

    Args:
        rng (np.random.Generator): Source of randomness.
        image_size (Size): Height and width of the image in pixels.
        sides (tuple[float, float]): Smallest and largest side of the patch, as fractions of the image side.

    Returns:
        Mask: Boolean mask of shape ``(h, w)`` that covers at least 20 % of its patch.
    """
    height, width = (int(rng.integers(round(sides[0] * side), round(sides[1] * side))) for side in image_size)
    best = perlin_mask(draw_perlin_noise(rng, (height, width)))
    for _ in range(MAXIMUM_DRAWS):
        if np.count_nonzero(best) / best.size >= MINIMUM_COVER:
            break
        best = max(best, perlin_mask(draw_perlin_noise(rng, (height, width))), key=np.count_nonzero)
    return best


@dataclass(frozen=True)
class Shape:
    """Ellipse or rectangle about the centre of its patch.

    A point ``p``, counted from the centre of the patch, belongs to the shape if ``q = inverse(transform) @ p`` lies in
    the upright ellipse or rectangle of the given size.

    Attributes:
        ellipse (bool): Ellipse if true, rectangle otherwise.
        size (Size): Height and width before the transform, in pixels.
        transform (Positions): Rotation, with shear and scale where the official code has them, ``(2, 2)``.
    """

    ellipse: bool
    size: Size
    transform: Positions

    @property
    def patch_size(self) -> Size:
        """Size of the smallest patch of odd sides that holds the shape."""
        reach = np.ceil(np.abs(self.transform) @ ((np.array(self.size) - 1) / 2))
        return int(2 * reach[0] + 1), int(2 * reach[1] + 1)

    def normalise(self, offsets: Positions) -> Positions:
        """Map offsets ``(2, ...)`` in pixels to units in which the shape is the unit circle or the square [-1, 1]^2."""
        halves = np.array(self.size) / 2
        return np.tensordot(self._inverse / halves[:, None], offsets, axes=1)

    @cached_property
    def _inverse(self) -> Positions:
        return np.asarray(np.linalg.inv(self.transform), dtype=np.float64)


def rotation(degrees: float) -> Positions:
    """Return the matrix, ``(2, 2)``, that rotates (row, column) coordinates."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def draw_shape(rng: np.random.Generator, image_size: Size, shear: bool = False) -> Shape:
    """Draw an ellipse or rectangle of random size and rotation.

    Args:
        rng (np.random.Generator): Source of randomness.
        image_size (Size): Height and width of the image in pixels.
        shear (bool): Shear the shape, by factors from N(0, 0.2) on each axis, before it is rotated (official code).

    Returns:
        Shape: Shape whose patch is at most 0.6 of the image side.
    """
    lowest, highest = (np.round(fraction * np.array(image_size)) for fraction in SHAPE_SIDES)
    sides = (0.03 + rng.gamma(shape=2, scale=0.1, size=2)) * image_size
    height, width = np.clip(sides, lowest, highest).astype(int)
    ellipse = bool(rng.random() < 0.5)
    shears = np.array([[0, rng.normal(0, 0.2)], [rng.normal(0, 0.2), 0]]) * shear
    shape = Shape(ellipse, (int(height), int(width)), rotation(rng.uniform(-90, 90)) @ (np.eye(2) + shears))
    excess = max(1.0, float(np.max(shape.patch_size / highest)))
    return Shape(ellipse, shape.size, shape.transform / excess)


def shape_mask(shape: Shape) -> Mask:
    """Return the boolean mask, ``(h, w)``, of a shape in its patch."""
    height, width = shape.patch_size
    offsets = np.indices((height, width)) - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    position = shape.normalise(offsets)
    distance = (position**2).sum(axis=0) if shape.ellipse else np.abs(position).max(axis=0)
    return np.asarray(distance <= 1)


def find_foreground(image: Array) -> Mask | None:
    """Find the anatomy: the pixels brighter than 5 % of the range of the image.

    Args:
        image (Array): Image of shape ``(H, W, C)``.

    Returns:
        Mask | None: Boolean mask of shape ``(H, W)``; None where it would cover less than 5 % of the image, so that a
            constant or nearly black image puts no constraint on the position.
    """
    brightness = image.mean(axis=2) if image.shape[2] > 1 else image[..., 0]
    foreground = brightness > brightness.min() + FOREGROUND_LEVEL * np.ptp(brightness)
    return foreground if np.count_nonzero(foreground) >= MINIMUM_FOREGROUND * foreground.size else None


def draw_corner(rng: np.random.Generator, mask: Mask, image_size: Size, foreground: Mask | None = None) -> Size:
    """Draw where a patch lies, uniformly over all positions inside the image.

    Args:
        rng (np.random.Generator): Source of randomness.
        mask (Mask): Mask of shape ``(h, w)`` in the patch.
        image_size (Size): Height and width of the image in pixels.
        foreground (Mask | None): Anatomy, ``(H, W)``. If given, the position is drawn again until at least half of the
            mask lies on it; after 20 draws the best one is taken.

    Returns:
        Size: Row and column of the top left corner of the patch in the image.
    """
    best, best_share, size = (0, 0), -1.0, np.count_nonzero(mask)
    for _ in range(MAXIMUM_POSITIONS):
        top, left = (int(rng.integers(image_size[axis] - mask.shape[axis] + 1)) for axis in (0, 1))
        share = 1.0 if foreground is None else np.count_nonzero(foreground[window((top, left), mask)] & mask) / size
        if share > best_share:
            best, best_share = (top, left), share
        if best_share >= 0.5:
            break
    return best


def window(corner: Size, mask: Mask) -> tuple[slice, slice]:
    """Return the index of the patch of a mask in the image."""
    return slice(corner[0], corner[0] + mask.shape[0]), slice(corner[1], corner[1] + mask.shape[1])


def bounding_box(mask: Mask) -> tuple[slice, slice]:
    """Return the index of the smallest box that holds a mask; it is empty if the mask is."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return slice(top, top + height), slice(left, left + width)


@lru_cache(maxsize=1024)  # of a few kilobytes each; the same lengths come up again and again
def _corner_weights(length: int) -> tuple[Array, Array]:
    """Offsets of every pixel from the two corners of the cell and Perlin's weights 6t⁵ - 15t⁴ + 10t³ of the corners."""
    offsets = np.arange(length, dtype=np.float32)[:, None] / np.float32(length) - np.array([0, 1], dtype=np.float32)
    position = 1 - np.abs(offsets)
    return offsets, position**3 * (position * (position * 6 - 15) + 10)
