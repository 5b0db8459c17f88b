# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images that look the same although their bytes differ: saved again, resized, cropped by a few pixels.

The hash is the usual one of discrete cosine transforms (`ImageHash <https://github.com/JohannesBuchner/imagehash>`_
calls it ``phash``), with 256 bits instead of 64: with 64, radiographs of different people are as near as copies are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

SIDE = 16  # frequencies in each direction, one bit each
BITS = SIDE * SIDE
# Copies in BUSI differ in up to 40 bits, the nearest radiographs of different people in ChestX-ray14 in 56.
MAX_DISTANCE = 40
_BLOCK = 4096  # images that are compared at once


class Pair(NamedTuple):
    """Two images that look the same.

    Attributes:
        first (int): Position of the one.
        second (int): Position of the other, larger than ``first``.
        distance (int): Number of bits in which their hashes differ, from 0 to ``MAX_DISTANCE``.
    """

    first: int
    second: int
    distance: int


def perceptual_hash(image: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return whether each of the lowest frequencies of an image is stronger than their median.

    Args:
        image (np.ndarray): Grey image ``(H, W)``, any range.

    Returns:
        np.ndarray: 256 bits.

    Example:
        >>> ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
        >>> bool((perceptual_hash(ramp) == perceptual_hash(0.5 * ramp)).all())
        True
    """
    small = cv2.resize(image, (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_AREA)
    frequencies = dctn(small, norm="ortho")[:SIDE, :SIDE].ravel()
    return frequencies > np.median(frequencies[1:])  # the first one is the brightness


def similar_pairs(hashes: Sequence[npt.NDArray[np.bool_]]) -> list[Pair]:
    """Find all pairs of images whose hashes differ in at most ``MAX_DISTANCE`` bits.

    Args:
        hashes (Sequence[np.ndarray]): Hash of each image.

    Returns:
        list[Pair]: The nearest first.

    Example:
        >>> hashes = [np.zeros(256, bool), np.ones(256, bool), np.arange(256) < 3]
        >>> similar_pairs(hashes)
        [Pair(first=0, second=2, distance=3)]
    """
    if not hashes:
        return []
    signs = np.where(np.stack(hashes), 1, -1).astype(np.float32)  # the product of two hashes is 256 - 2 * distance
    pairs = []
    for start in range(0, len(signs), _BLOCK):
        for other in range(start, len(signs), _BLOCK):
            distances = (BITS - signs[start : start + _BLOCK] @ signs[other : other + _BLOCK].T) / 2
            for row, column in np.argwhere(distances <= MAX_DISTANCE):
                if start + row < other + column:
                    pairs.append(Pair(int(start + row), int(other + column), int(distances[row, column])))
    return sorted(pairs, key=lambda pair: (pair.distance, pair.first, pair.second))
