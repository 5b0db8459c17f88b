# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Simplex noise against the package opensimplex, and its statistics."""

import numpy as np
import pytest
import torch
from opensimplex.internals import _init, _noise3

from anomalib_mediclip.models.anoddpm.simplex import OFFSETS, Scales, draw_permutations, simplex, simplex_fields
from anomalib_mediclip.seeds import generator_of


@pytest.fixture(scope="module")
def fields() -> torch.Tensor:
    permutations = draw_permutations(24, generator_of(0))
    times = torch.randint(250, (24,), generator=generator_of(1))
    return simplex_fields(permutations, times, (160, 160), Scales())[:, 0]


def test_it_is_the_noise_of_opensimplex_for_its_permutation() -> None:
    permutation, gradient_index = (np.asarray(table) for table in _init(3))
    points = 200 * torch.rand(3, 1, 2000, generator=generator_of(1), dtype=torch.float64) - 100
    expected = [_noise3(*point, permutation, gradient_index) for point in points[:, 0].T.tolist()]
    found = simplex(torch.from_numpy(permutation.astype(np.int64))[None], points)[0]
    difference = (found - torch.tensor(expected)).abs()
    assert difference.max() < 2e-4  # the package leaves tiny contributions out at a few points in a hundred
    assert difference.median() < 1e-6


def test_points_that_are_left_out_contribute_nothing(monkeypatch) -> None:
    import itertools

    from anomalib_mediclip.models.anoddpm import simplex as module

    points = 20 * torch.rand(3, 1, 5000, generator=generator_of(2), dtype=torch.float64)
    permutations = draw_permutations(1, generator_of(0))
    found = simplex(permutations, points)
    monkeypatch.setattr(module, "OFFSETS", list(itertools.product((-1, 0, 1, 2), repeat=3)))
    torch.testing.assert_close(found, simplex(permutations, points), atol=1e-6, rtol=0)
    assert len(OFFSETS) == 26


def test_a_field_is_the_sum_of_its_octaves() -> None:
    permutations, times = draw_permutations(2, generator_of(0)), torch.tensor([3, 90])
    field = simplex_fields(permutations, times, (5, 7), Scales(wavelength=8, octaves=2, persistence=0.5))
    for number, time in enumerate(times.tolist()):
        for y, x in ((0, 0), (4, 6), (2, 3)):
            octaves = [
                simplex(permutations[number : number + 1], torch.tensor([x, y, time]).view(3, 1, 1).double() / length)
                for length in (8, 4)
            ]
            expected = (octaves[0] + 0.5 * octaves[1]).item()
            assert field[number, 0, y, x].item() == pytest.approx(expected, abs=1e-6)


def test_fields_depend_on_their_permutation_only() -> None:
    first = simplex_fields(draw_permutations(3, generator_of(5)), torch.zeros(3), (16, 16), Scales())
    again = simplex_fields(draw_permutations(1, generator_of(5)), torch.zeros(1), (16, 16), Scales())
    assert torch.equal(first[:1], again)
    assert not torch.equal(first[0], first[1])


@pytest.mark.slow
def test_its_size_and_range(fields) -> None:
    assert fields.std(dim=(1, 2)).mean().item() == pytest.approx(0.49, abs=0.03)
    assert (fields.abs() < 2).float().mean() > 0.9999
    assert fields.abs().max() < sum(0.8**octave for octave in range(6))  # OpenSimplex lies within -1 and 1


@pytest.mark.slow
@pytest.mark.parametrize(("distance", "expected"), [(1, 0.96), (8, 0.64), (32, 0.21), (64, 0.0)])
def test_neighbours_are_alike_at_all_scales(fields, distance, expected) -> None:
    """White noise would have 0 at every distance."""
    along = fields[:, :, distance:] * fields[:, :, :-distance]
    down = fields[:, distance:] * fields[:, :-distance]
    correlation = (along.mean() + down.mean()).item() / 2 / fields.square().mean().item()
    assert correlation == pytest.approx(expected, abs=0.06)
