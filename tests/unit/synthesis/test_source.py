# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Task Source."""

import numpy as np
import pytest

from anomalib_mediclip.synthesis.masks import Shape, rotation, shape_mask
from anomalib_mediclip.synthesis.source import SourceDeformation, deform, draw_deformation, source_mapping


def circle(diameter: int) -> Shape:
    return Shape(ellipse=True, size=(diameter, diameter), transform=np.eye(2))


def test_equation_5_exactly_on_a_circle():
    shape = circle(80)  # r = 40 from its centre, (39.5, 39.5) is rounded up to the odd patch of 81: (40, 40)
    mapping = source_mapping(shape, shape_mask(shape), SourceDeformation(centre=(40, 40), alpha=2.0))
    for distance in (0, 10, 20, 30):
        expected = 40 + 40 * (distance / 40) ** 2
        assert mapping[:, 40, 40 + distance] == pytest.approx([40, expected])
        assert mapping[:, 40 - distance, 40] == pytest.approx([80 - expected, 40])
    assert mapping[:, 40 + 12, 40 + 16] == pytest.approx(40 + 0.5 * np.array([12, 16]))  # t = 20, r = 40


def test_centre_off_the_middle_uses_the_radius_towards_each_pixel():
    shape = circle(80)
    mapping = source_mapping(shape, shape_mask(shape), SourceDeformation(centre=(40, 60), alpha=3.0))
    assert mapping[1, 40, 70] == pytest.approx(60 + 20 * (10 / 20) ** 3)
    assert mapping[1, 40, 30] == pytest.approx(60 - 60 * (30 / 60) ** 3)


@pytest.mark.parametrize("ellipse", [True, False])
def test_centre_edge_and_alpha_of_one_stay_in_place(ellipse):
    shape = Shape(ellipse, size=(61, 41), transform=rotation(30))
    mask = shape_mask(shape)
    pixels = np.indices(mask.shape)
    row, column = np.argwhere(mask)[len(np.argwhere(mask)) // 3]
    mapping = source_mapping(shape, mask, SourceDeformation((row, column), alpha=3.0))
    assert mapping[:, row, column] == pytest.approx([row, column])
    assert np.array_equal(mapping[:, ~mask], pixels[:, ~mask])
    identity = source_mapping(shape, mask, SourceDeformation((row, column), alpha=1.0))
    assert identity == pytest.approx(pixels)


def test_pixels_on_the_edge_of_the_shape_stay_in_place():
    shape = Shape(ellipse=True, size=(80, 120), transform=np.eye(2))
    mask = shape_mask(shape)
    pixels = np.indices(mask.shape)
    mapping = source_mapping(shape, mask, SourceDeformation((mask.shape[0] // 2, mask.shape[1] // 2), alpha=1.5))
    moved = np.linalg.norm(mapping - pixels, axis=0)
    assert moved[mask.shape[0] // 2, 1] < 0.6  # next to the vertex of the ellipse
    assert moved.max() > 5


@pytest.mark.parametrize("ellipse", [True, False])
@pytest.mark.parametrize("alpha", [2**0.5, 3.99])
def test_centre_on_the_edge_is_finite_and_inside_the_patch(ellipse, alpha):
    shape = Shape(ellipse, size=(45, 45), transform=np.eye(2))
    mask = shape_mask(shape)
    for centre in ((0, 22), (22, 0), (44, 22), (22, 44)):
        mapping = source_mapping(shape, mask, SourceDeformation(centre, alpha))
        assert np.isfinite(mapping).all()
        assert mapping.min() >= 0
        assert mapping.max() <= 44


@pytest.mark.parametrize("case", range(4))
def test_parity_with_the_official_code(fixtures, case):
    """Reading positions agree to 1e-4 pixels; values to the rounding of 8-bit images."""
    official = np.load(fixtures / "official_source.npz")
    mask, centre, alpha, degrees, size, ellipse, corner, mapping, patch = (
        official[f"source{case}_{name}"]
        for name in ("mask", "centre", "alpha", "degrees", "size", "ellipse", "corner", "mapping", "patch")
    )
    shape = Shape(bool(ellipse), (int(size[0]), int(size[1])), rotation(float(degrees)))
    assert np.array_equal(shape_mask(shape), mask)
    ours = source_mapping(shape, mask, SourceDeformation(tuple(centre), float(alpha)))
    assert np.abs(ours - mapping).max() < 1e-4
    rows, columns = slice(corner[0], corner[0] + mask.shape[0]), slice(corner[1], corner[1] + mask.shape[1])
    crop = official["image"][rows, columns, None].astype(np.float32) / 255
    assert np.abs(255 * deform(crop, mask, ours)[..., 0] - patch)[mask].max() <= 0.501


def test_constant_patch_stays_constant():
    shape = circle(61)
    mask = shape_mask(shape)
    mapping = source_mapping(shape, mask, SourceDeformation((30, 30), alpha=2.0))
    patch = np.full((61, 61, 3), 0.3, np.float32)
    assert deform(patch, mask, mapping) == pytest.approx(patch, abs=1e-6)


@pytest.mark.parametrize(("distribution", "median"), [("uniform", (2**0.5 + 4) / 2), ("log_uniform", 2**1.25)])
def test_alpha_and_centre_are_drawn_from_their_ranges(distribution, median):
    rng = np.random.default_rng(0)
    mask = shape_mask(Shape(ellipse=True, size=(61, 41), transform=rotation(30)))
    draws = [draw_deformation(rng, mask, distribution) for _ in range(1000)]
    alphas = np.array([draw.alpha for draw in draws])
    assert alphas.min() >= 2**0.5
    assert alphas.max() < 4
    assert np.median(alphas) == pytest.approx(median, abs=0.1)
    assert all(mask[draw.centre] for draw in draws)
