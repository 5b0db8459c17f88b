# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Perceptual hashes: copies are near, other images far."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from anomalib_mediclip.prepare.similarity import BITS, MAX_DISTANCE, Pair, perceptual_hash, similar_pairs


def picture(seed: int, side: int = 256) -> np.ndarray:
    """Return smooth noise in [0, 1], as images of tissue are."""
    noise = gaussian_filter(np.random.default_rng(seed).random((side, side)), 6)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def distance(first: np.ndarray, second: np.ndarray) -> int:
    return int((perceptual_hash(first) != perceptual_hash(second)).sum())


def test_copies_are_near() -> None:
    image = picture(0)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image * 255, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)
    assert distance(image, image) == 0
    assert distance(image, 0.2 + 0.5 * image) == 0
    assert distance(image, jpeg.astype(np.float32)) <= 8
    assert distance(image, cv2.resize(image, (150, 190), interpolation=cv2.INTER_AREA)) <= 8
    assert distance(image, image[2:, 2:]) <= MAX_DISTANCE


def test_other_images_are_far() -> None:
    distances = [distance(picture(first), picture(second)) for first in range(6) for second in range(first)]
    assert min(distances) > 2 * MAX_DISTANCE


@pytest.mark.parametrize("image", [np.zeros((40, 50), np.float32), np.ones((1, 1), np.float32)])
def test_images_without_structure_have_a_hash(image: np.ndarray) -> None:
    assert perceptual_hash(image).shape == (BITS,)


def test_pairs_are_those_of_a_comparison_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalib_mediclip.prepare.similarity._BLOCK", 4)
    random = np.random.default_rng(0)
    hashes = list(random.random((5, BITS)) < 0.5)
    for position, flipped in enumerate((0, 1, MAX_DISTANCE, MAX_DISTANCE + 1, 3, 17)):
        copy = hashes[position % 5].copy()
        copy[random.permutation(BITS)[:flipped]] ^= True
        hashes.append(copy)
    expected = [
        Pair(first, second, int((hashes[first] != hashes[second]).sum()))
        for first in range(len(hashes))
        for second in range(first + 1, len(hashes))
    ]
    expected = [pair for pair in expected if pair.distance <= MAX_DISTANCE]
    assert similar_pairs(hashes) == sorted(expected, key=lambda pair: (pair.distance, pair.first, pair.second))
    assert {pair.distance for pair in expected} >= {0, 1, MAX_DISTANCE}
    assert similar_pairs([]) == []
