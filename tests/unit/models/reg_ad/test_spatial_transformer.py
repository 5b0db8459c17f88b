# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Spatial transformers: nine modes, what they do to a map, and that it can be undone."""

import math
from typing import get_args

import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional

from anomalib_mediclip.models.reg_ad.spatial_transformer import (
    SpatialTransformer,
    TransformMode,
    compose,
    invert,
    transformations,
    warp,
)

MODES = get_args(TransformMode)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def turned(angle: float, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[[cosine, -sine, shift[0]], [sine, cosine, shift[1]]]])


def smooth_map(size: int) -> torch.Tensor:
    """Return a map of one slow wave, ``(1, 2, size, size)``."""
    steps = torch.linspace(-1, 1, size)
    wave = torch.sin(2 * steps[:, None] + 1) * torch.cos(1.5 * steps[None] - 0.3)
    return torch.stack([wave, wave.T])[None]


def test_there_are_the_nine_modes_of_the_official_code_with_their_numbers_of_parameters() -> None:
    numbers = {mode: SpatialTransformer(4, (8, 8), mode).localise[-1].out_features for mode in MODES}
    assert numbers == {
        "affine": 6,
        "translation": 2,
        "rotation": 1,
        "scale": 2,
        "shear": 2,
        "rotation_scale": 3,
        "translation_scale": 4,
        "rotation_translation": 3,
        "rotation_translation_scale": 5,
    }


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_starts_at_rest(mode: TransformMode) -> None:
    features = random(2, 4, 9, 14)
    moved, matrices = SpatialTransformer(4, (9, 14), mode)(features)
    assert torch.equal(matrices, torch.eye(3)[:2].expand(2, 2, 3))
    torch.testing.assert_close(moved, features, atol=1e-5, rtol=0)


A, S, T, X, Y = 0.4, 1.2, 0.7, 0.1, -0.3
COS, SIN = math.cos(A), math.sin(A)


@pytest.mark.parametrize(
    ("mode", "parameters", "expected"),
    [
        ("affine", [1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
        ("translation", [X, Y], [[1, 0, X], [0, 1, Y]]),
        ("rotation", [A], [[COS, -SIN, 0], [SIN, COS, 0]]),
        ("scale", [S, T], [[S, 0, 0], [0, T, 0]]),
        ("shear", [X, Y], [[1, X, 0], [Y, 1, 0]]),
        ("rotation_scale", [A, S, T], [[S * COS, -SIN, 0], [SIN, T * COS, 0]]),
        ("translation_scale", [X, Y, S, T], [[S, 0, X], [0, T, Y]]),
        ("rotation_translation", [A, X, Y], [[COS, -SIN, X], [SIN, COS, Y]]),
        ("rotation_translation_scale", [A, X, Y, S, T], [[S * COS, -SIN, X], [SIN, T * COS, Y]]),
    ],
)
def test_modes_give_the_matrices_of_the_official_code(mode: TransformMode, parameters: list, expected: list) -> None:
    found = transformations(torch.tensor([parameters], dtype=torch.float32), mode)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float32))


def test_layers_are_those_of_the_official_code_on_a_map_of_56_and_sides_are_rounded_up() -> None:
    shapes = [
        tuple(layer.weight.shape) for layer in SpatialTransformer(64, (56, 56)).localise if hasattr(layer, "weight")
    ]
    assert shapes == [(64, 64, 3, 3), (64,), (16, 64, 3, 3), (16,), (1024, 16 * 14 * 14), (3, 1024)]
    assert SpatialTransformer(8, (14, 7)).localise[-3].in_features == 16 * 4 * 2


def test_a_map_is_read_where_the_matrix_says_and_edges_are_reflected() -> None:
    features, matrix = random(1, 1, 7, 11), turned(0.5, scale=1.3, shift=(0.4, -0.2))
    expected = torch.empty(7, 11)
    for row in range(7):
        for column in range(11):
            x, y = (2 * column + 1) / 11 - 1, (2 * row + 1) / 7 - 1
            u = matrix[0, 0, 0] * x + matrix[0, 0, 1] * y + matrix[0, 0, 2]
            v = matrix[0, 1, 0] * x + matrix[0, 1, 1] * y + matrix[0, 1, 2]
            place = [[((v + 1) * 7 - 1) / 2], [((u + 1) * 11 - 1) / 2]]
            expected[row, column] = map_coordinates(features[0, 0].numpy(), place, order=1, mode="reflect").item()
    torch.testing.assert_close(warp(features, matrix)[0, 0], expected, atol=1e-4, rtol=0)


def test_warping_is_what_torch_does_with_an_affine_grid() -> None:
    features, matrices = random(2, 3, 8, 5), torch.cat([turned(0.3), turned(-1.0, 0.8, (0.2, 0.6))])
    grid = functional.affine_grid(matrices, [2, 3, 8, 5], align_corners=False)
    expected = functional.grid_sample(features, grid, padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(warp(features, matrices), expected)


def test_inverses_are_those_of_linear_algebra() -> None:
    matrices = torch.cat([turned(0.7, 1.4, (0.3, -0.6)), torch.tensor([[[0.5, 0.2, 0.1], [-0.3, 2.0, 0.9]]])])
    whole = torch.cat([matrices, torch.tensor([0.0, 0.0, 1.0]).expand(2, 1, 3)], dim=1).double()
    torch.testing.assert_close(invert(matrices).double(), torch.linalg.inv(whole)[:, :2], atol=1e-6, rtol=1e-6)
    assert torch.equal(invert(torch.eye(3)[None, :2]), torch.eye(3)[None, :2])


def test_a_product_of_matrices_moves_a_map_as_they_do_one_after_the_other() -> None:
    features, first, second = smooth_map(64), turned(0.2, 0.9, (0.05, 0.0)), turned(-0.35, 0.95, (0.0, 0.1))
    one_by_one = warp(warp(features, first), second)
    inside = slice(16, -16)
    at_once = warp(features, compose(first, second))
    torch.testing.assert_close(at_once[..., inside, inside], one_by_one[..., inside, inside], atol=2e-3, rtol=0)
    other_order = warp(features, compose(second, first))
    assert (other_order - one_by_one)[..., inside, inside].abs().max() > 0.02


def test_a_moved_map_is_restored_inside_by_the_inverse() -> None:
    features, matrix = smooth_map(56), turned(0.3, 0.9)
    moved = warp(features, matrix)
    restored = warp(moved, invert(matrix))
    inside = slice(14, -14)
    assert (moved - features)[..., inside, inside].abs().max() > 0.1
    torch.testing.assert_close(restored[..., inside, inside], features[..., inside, inside], atol=3e-3, rtol=0)


def test_half_precision_maps_are_moved_by_exact_positions() -> None:
    features = random(1, 2, 40, 40)
    moved = warp(features.bfloat16(), turned(0.3))
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved.float(), warp(features.bfloat16().float(), turned(0.3)), atol=4e-3, rtol=0)


def test_gradients_reach_the_layers_that_read_the_map() -> None:
    transformer = SpatialTransformer(3, (12, 12)).train()
    moved, _ = transformer(random(4, 3, 12, 12))
    (moved * random(4, 3, 12, 12, seed=1)).sum().backward()
    assert transformer.localise[-1].bias.grad.abs().min() > 0


def test_unknown_mode_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"transform='zoom': use one of affine, .*rotation_translation_scale"):
        SpatialTransformer(4, (8, 8), "zoom")
