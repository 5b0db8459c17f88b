# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Shapes of the masks and their place in the image."""

import numpy as np
import pytest

from anomalib_mediclip.synthesis.masks import (
    PerlinNoise,
    Shape,
    draw_corner,
    draw_perlin_mask,
    draw_shape,
    find_foreground,
    perlin_mask,
    rotation,
    shape_mask,
    window,
)


def test_perlin_mask_of_parallel_gradients_is_a_ramp():
    """With all four gradients along the columns P = √2 (x - fade(x)), here computed by hand."""
    mask = perlin_mask(PerlinNoise((8, 40), np.full((2, 2), np.pi / 2, np.float32), degrees=0.0))
    x = np.arange(40) / 40
    expected = np.sqrt(2) * (x - (6 * x**5 - 15 * x**4 + 10 * x**3))
    assert not mask.any()  # it stays below 0.3
    assert expected.max() < 0.3
    opposite = perlin_mask(PerlinNoise((8, 40), np.array([[1, 3], [1, 3]], np.float32) * np.pi / 2, degrees=0.0))
    fade = 6 * x**5 - 15 * x**4 + 10 * x**3
    assert np.array_equal(opposite, np.tile(np.sqrt(2) * (x * (1 - fade) + (1 - x) * fade) > 0.3, (8, 1)))


@pytest.mark.parametrize("image_size", [(64, 64), (300, 200)])
def test_perlin_masks_have_the_size_and_cover_of_the_official_code(image_size):
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = draw_perlin_mask(rng, image_size, (0.1, 0.6))
        assert mask.mean() >= 0.2
        assert all(round(0.1 * s) <= m < round(0.6 * s) for s, m in zip(image_size, mask.shape, strict=True))


@pytest.mark.parametrize("shear", [False, True])
def test_shapes_stay_within_the_bounds_of_the_official_code(shear):
    rng = np.random.default_rng(0)
    masks = [shape_mask(draw_shape(rng, (300, 200), shear)) for _ in range(200)]
    assert max(mask.shape[0] for mask in masks) <= 182
    assert max(mask.shape[1] for mask in masks) <= 122
    areas = np.array([mask.sum() for mask in masks]) / 60_000
    assert areas.min() > 0.02
    assert 0.04 < np.median(areas) < 0.07  # official: median 5.2 %


def test_ellipse_and_rectangle_have_their_area():
    turned = Shape(ellipse=True, size=(40, 80), transform=rotation(33))
    assert shape_mask(turned).sum() == pytest.approx(np.pi * 20 * 40, rel=0.02)
    upright = Shape(ellipse=False, size=(41, 81), transform=rotation(0))
    assert shape_mask(upright).all()
    assert shape_mask(upright).shape == (41, 81)


def test_foreground_is_the_bright_disc():
    disc = (np.indices((100, 100)) - 50.0).__pow__(2).sum(axis=0) < 30**2
    assert np.array_equal(find_foreground(0.2 * disc[..., None].astype(np.float32)), disc)


@pytest.mark.parametrize(
    "image", [np.zeros((64, 64, 1)), np.full((64, 64, 1), 0.7), np.pad([[[1.0]]], ((0, 63), (0, 63), (0, 0)))]
)
def test_images_without_foreground_put_no_constraint(image):
    assert find_foreground(image.astype(np.float32)) is None


def test_corner_is_drawn_again_until_half_of_the_mask_is_on_foreground():
    rng = np.random.default_rng(0)
    foreground = np.zeros((100, 100), bool)
    foreground[:, 60:] = True
    mask = np.ones((20, 20), bool)
    shares = [foreground[window(draw_corner(rng, mask, (100, 100), foreground), mask)].mean() for _ in range(100)]
    unconstrained = [foreground[window(draw_corner(rng, mask, (100, 100)), mask)].mean() for _ in range(100)]
    assert min(shares) >= 0.5
    assert min(unconstrained) == 0


def test_corner_takes_the_best_position_where_half_is_impossible():
    foreground = np.zeros((100, 100), bool)
    foreground[40:60, 40:60] = True
    mask = np.ones((60, 60), bool)
    corner = draw_corner(np.random.default_rng(0), mask, (100, 100), foreground)
    assert foreground[window(corner, mask)].sum() == 400
