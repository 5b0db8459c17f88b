# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pairs of patches of Patch SVDD by their statistics."""

import pytest
import torch

from anomalib_mediclip.models.patch_svdd.pairs import OFFSETS, add_noise, cut, draw_close_pairs, draw_neighbours
from anomalib_mediclip.seeds import generator_of

SIZE = (224, 256)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("draw", [draw_close_pairs, draw_neighbours])
def test_both_patches_lie_in_the_image_however_they_are_drawn(draw, side) -> None:
    for keep_inside in (True, False):
        pairs = draw(5000, 3, SIZE, side, keep_inside, generator_of(0))
        for corners in (pairs.first, pairs.second):
            assert corners.min() == 0
            assert (corners.amax(dim=0) == torch.tensor(SIZE) - side).all()
        assert torch.bincount(pairs.images).tolist() == [1667, 1667, 1666]


@pytest.mark.parametrize(("side", "reach"), [(32, 1), (64, 2)])
def test_close_pairs_are_shifted_by_every_shift_but_none_alike(side, reach) -> None:
    pairs = draw_close_pairs(24_000, 1, SIZE, side, True, generator_of(1))
    shifts, counts = (pairs.second - pairs.first).unique(dim=0, return_counts=True)
    side_of_square = 2 * reach + 1
    assert len(shifts) == side_of_square**2 - 1
    assert shifts.abs().max() == reach
    assert (shifts.abs().sum(dim=1) > 0).all()
    assert counts.tolist() == pytest.approx([24_000 / len(shifts)] * len(shifts), rel=0.15)


@pytest.mark.parametrize("side", [32, 64])
def test_neighbours_lie_where_their_label_says(side) -> None:
    pairs = draw_neighbours(16_000, 1, SIZE, side, True, generator_of(2))
    offsets = pairs.second - pairs.first
    assert torch.equal(offsets.sign(), OFFSETS[pairs.directions])
    distances = offsets.abs()[offsets != 0]
    assert (distances.min(), distances.max()) == (3 * side // 4, side - 1)
    assert torch.bincount(pairs.directions).tolist() == pytest.approx([2000] * 8, rel=0.12)


def test_moved_pairs_carry_the_false_labels_of_the_official_code() -> None:
    """At 224 pixels one larger pair in eight lies in another sector than its label; one in eight overlaps by half."""
    pairs = draw_neighbours(20_000, 1, (224, 224), 64, False, generator_of(3))
    offsets, wanted = (pairs.second - pairs.first).double(), OFFSETS[pairs.directions].double()
    overlap = (offsets.abs() < 32).all(dim=1).double().mean()
    assert overlap.item() == pytest.approx(0.12, abs=0.02)
    angles = torch.atan2(*offsets.unbind(1)), torch.atan2(*wanted.unbind(1))
    away = (angles[0] - angles[1] + torch.pi).remainder(2 * torch.pi) - torch.pi
    wrong = (away.abs() > torch.pi / 8) | (offsets.abs().sum(dim=1) == 0)
    assert wrong.double().mean().item() == pytest.approx(0.125, abs=0.02)


def test_patches_are_cut_where_the_corners_say() -> None:
    images = torch.arange(2 * 3 * 50 * 60.0).view(2, 3, 50, 60)
    numbers, corners = torch.tensor([1, 0]), torch.tensor([[3, 7], [18, 28]])
    patches = cut(images, numbers, corners, 32)
    assert torch.equal(patches[0], images[1, :, 3:35, 7:39])
    assert torch.equal(patches[1], images[0, :, 18:50, 28:60])
    assert patches.is_contiguous(memory_format=torch.channels_last)


def test_noise_shifts_each_colour_of_a_patch_and_every_pixel() -> None:
    noisy = add_noise(torch.zeros(400, 3, 32, 32), generator_of(4))
    shifts = noisy.mean(dim=(2, 3))
    assert shifts.std().item() == pytest.approx(0.02, rel=0.1)
    assert (noisy - shifts[:, :, None, None]).std().item() == pytest.approx(0.02, rel=0.02)
    assert not torch.equal(noisy[0], noisy[1])


def test_draws_follow_the_generator() -> None:
    first, again, other = (draw_neighbours(9, 2, SIZE, 32, True, generator_of(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.first, again.first)
    assert torch.equal(first.directions, again.directions)
    assert not torch.equal(first.first, other.first)
