# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Short cuts of the synthesis against the plain way."""

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from anomalib_mediclip.synthesis import MedicalAnomalyGenerator
from anomalib_mediclip.synthesis.cut_paste import PatchCut, cut_patch
from anomalib_mediclip.synthesis.masks import Shape, draw_perlin_mask, rotation, shape_mask
from anomalib_mediclip.synthesis.poisson import COARSEST_SIDE, TOLERANCE, membrane
from anomalib_mediclip.synthesis.sampling import Spline
from anomalib_mediclip.synthesis.source import SourceDeformation, source_mapping

CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32)


def neighbour_sum(values: np.ndarray) -> np.ndarray:
    return cv2.filter2D(values, -1, CROSS, borderType=cv2.BORDER_CONSTANT)


def block_sum(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, [(0, side % 2) for side in values.shape])
    return padded[0::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 0::2] + padded[1::2, 1::2]


def plain_relaxation(guess: np.ndarray, known: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Conjugate gradients over the whole patch, one operation at a time."""
    inside = mask.astype(np.float32)
    degree = neighbour_sum(np.ones_like(inside))
    solution = guess * inside
    residual = inside * (neighbour_sum(known + solution) - degree * solution)
    direction, energy = residual, float((residual * residual).sum())
    enough = (TOLERANCE / max(mask.shape)) ** 2 * inside.sum()
    while energy > enough:
        change = inside * (degree * direction - neighbour_sum(direction))
        step = energy / float((direction * change).sum())
        solution, residual = solution + step * direction, residual - step * change
        previous, energy = energy, float((residual * residual).sum())
        direction = residual + (energy / previous) * direction
    return solution


def plain_membrane(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Coarse to fine over the whole patch."""
    rim = (neighbour_sum(mask.astype(np.float32)) > 0) & ~mask
    known = np.where(rim, values, 0).astype(np.float32)
    if not rim.any() or not mask.any():
        return np.zeros_like(known)
    if max(mask.shape) <= COARSEST_SIDE:
        return plain_relaxation(np.full_like(known, known.sum() / rim.sum()), known, mask)
    rim_pixels = block_sum(rim.astype(np.float32))
    coarse_known = block_sum(known) / np.maximum(rim_pixels, 1)
    coarse = coarse_known + plain_membrane(coarse_known, (block_sum(mask.astype(np.float32)) > 0) & (rim_pixels == 0))
    guess = coarse.repeat(2, axis=0).repeat(2, axis=1)[: mask.shape[0], : mask.shape[1]]
    return plain_relaxation(guess, known, mask)


@pytest.mark.parametrize("margin", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_membrane_is_the_plain_one_to_a_thousandth_of_the_range(seed, margin) -> None:
    rng = np.random.default_rng(seed)
    mask = np.pad(draw_perlin_mask(rng, (224, 224), (0.1, 0.6)), margin)
    values = gaussian_filter(rng.standard_normal(mask.shape), 2).astype(np.float32)
    values = (values - values.min()) / np.ptp(values)
    assert np.abs(membrane(values, mask) - plain_membrane(values, mask)).max() < 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_spline_reads_bit_for_bit_what_scipy_reads(channels) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((60, 50, channels), np.float32)
    positions = rng.uniform(-3, 62, (2, 40, 30))
    expected = [map_coordinates(image[..., c], positions, np.float32, order=3, mode="nearest") for c in range(channels)]
    assert np.array_equal(Spline(image).sample(positions), np.stack(expected, axis=-1))


def test_cut_for_a_mask_is_the_whole_cut_in_and_next_to_the_mask() -> None:
    rng = np.random.default_rng(1)
    image, mask = rng.random((96, 96, 1), np.float32), draw_perlin_mask(rng, (96, 96), (0.3, 0.6))
    cut = PatchCut(source=0, degrees=20.0, scale=1.1, position=(0.3, 0.6))
    whole, part = cut_patch(image, cut, mask.shape), cut_patch(image, cut, mask.shape, mask)
    needed = cv2.dilate(np.pad(mask, 1).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert part[needed] == pytest.approx(whole[needed], abs=1e-6)
    assert not part[~needed].any()


def test_pixels_that_source_leaves_alone_read_from_themselves() -> None:
    shape = Shape(ellipse=True, size=(41, 31), transform=rotation(25))
    mask = shape_mask(shape)
    mapping = source_mapping(shape, mask, SourceDeformation(tuple(np.argwhere(mask)[300]), alpha=2.5))
    assert np.array_equal(mapping[:, ~mask], np.indices(mask.shape)[:, ~mask])
    assert np.abs(mapping - np.indices(mask.shape)).max() > 3


def test_another_support_set_is_cut_from_at_once() -> None:
    generator = MedicalAnomalyGenerator(tasks={"cut_paste": 1.0}, blending="paste")
    image = torch.full((1, 96, 96), 0.2)
    for level in (0.9, 0.5):
        generator.set_support_set([torch.full((1, 96, 96), level)])
        changed, mask = generator(image)
        assert changed[mask > 0] == pytest.approx(level)


def test_a_support_image_serves_images_of_several_sizes() -> None:
    generator = MedicalAnomalyGenerator(tasks={"cut_paste": 1.0})
    generator.set_support_set([torch.rand(3, 100, 80, generator=torch.Generator().manual_seed(0))])
    for size in ((1, 96, 64), (3, 64, 96), (1, 96, 64)):
        fresh = MedicalAnomalyGenerator(tasks={"cut_paste": 1.0})
        fresh.set_support_set(generator.support_set)
        image = torch.rand(size, generator=torch.Generator().manual_seed(1))
        assert torch.equal(generator(image)[0], fresh(image)[0])
