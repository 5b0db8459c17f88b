# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Nearest neighbours of Patch SVDD against brute force, and the spreading of scores against a double loop."""

import pytest
import torch

from anomalib_mediclip.models.patch_svdd import memory_bank
from anomalib_mediclip.models.patch_svdd.anomaly_map import AnomalyMapGenerator, spread
from anomalib_mediclip.models.patch_svdd.memory_bank import Excluded, Grid, MemoryBank, nearest


def brute_force(queries: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    return (queries.double()[:, None] - bank.double()).square().sum(dim=2).sqrt().amin(dim=1)


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    monkeypatch.setattr(memory_bank, "QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(memory_bank, "ROWS_AT_ONCE", 11)


def test_nearest_neighbours_are_exact_in_tiles(small_tiles) -> None:
    queries, bank = torch.randn(40, 16), torch.randn(95, 16)
    torch.testing.assert_close(nearest(queries, bank).double(), brute_force(queries, bank), rtol=1e-6, atol=1e-7)


def test_copies_and_near_copies_keep_their_digits(small_tiles) -> None:
    """The expanded formula alone errs by 1e-4 and more at distances of this size."""
    bank = 0.9 + 1e-3 * torch.randn(95, 64)
    queries = torch.cat([bank[[3, 94, 40]], bank[:20] + 1e-5 * torch.randn(20, 64)])
    found = nearest(queries - bank.mean(dim=0), bank - bank.mean(dim=0))
    assert found[:3].tolist() == [0, 0, 0]
    torch.testing.assert_close(found.double(), brute_force(queries, bank), rtol=1e-2, atol=1e-7)


def test_a_support_image_is_compared_with_the_others(small_tiles) -> None:
    grid = Grid(side=32, stride=16, rows=3, columns=2)
    embeddings = torch.randn(4, 8, 3, 2)
    rows = embeddings.flatten(2).transpose(1, 2)  # (4, 6, 8)
    own = torch.tensor([2, -1, 0])
    queries = rows[[2, 1, 0]].flatten(0, 1)
    found = nearest(queries, rows.flatten(0, 1), Excluded(own, grid, 4)).view(3, 6)
    torch.testing.assert_close(found[0].double(), brute_force(rows[2], rows[[0, 1, 3]].flatten(0, 1)))
    assert found[1].tolist() == [0] * 6
    torch.testing.assert_close(found[2].double(), brute_force(rows[0], rows[1:].flatten(0, 1)))


def test_a_single_support_image_is_compared_with_patches_that_do_not_overlap() -> None:
    grid = Grid(side=32, stride=16, rows=4, columns=4)
    rows = torch.randn(16, 8)
    found = nearest(rows, rows, Excluded(torch.tensor([0]), grid, 1))
    for patch in range(16):
        apart = [o for o in range(16) if max(abs(o // 4 - patch // 4), abs(o % 4 - patch % 4)) * 16 >= 32]
        torch.testing.assert_close(found[patch].double(), brute_force(rows[[patch]], rows[apart])[0])
    alone = nearest(rows[:1], rows[:1], Excluded(torch.tensor([0]), Grid(64, 16, 1, 1), 1))
    assert alone.tolist() == [0]  # there is nothing else


def test_distances_do_not_change_when_the_mean_is_subtracted() -> None:
    bank, large, small = MemoryBank(), 5 + torch.randn(2, 8, 3, 3), 5 + torch.randn(2, 8, 7, 7)
    bank.remember(large, small)
    grids = Grid(64, 16, 3, 3), Grid(32, 8, 7, 7)
    seen = 5 + torch.randn(1, 8, 3, 3), 5 + torch.randn(1, 8, 7, 7)
    for found, queries, embeddings in zip(bank.distances(*seen, grids), seen, (large, small), strict=True):
        rows = [part.flatten(2).transpose(1, 2).flatten(0, 1) for part in (queries, embeddings)]
        torch.testing.assert_close(found.flatten().double(), brute_force(*rows), rtol=1e-5, atol=1e-6)
    assert [part.abs().max().item() for part in bank.distances(large, small, grids)] == [0, 0]


@pytest.mark.parametrize(("side", "stride"), [(64, 16), (32, 8), (32, 4), (4, 4)])
def test_scores_are_spread_as_by_a_double_loop(side, stride) -> None:
    scores = torch.rand(2, 1, 5, 4, dtype=torch.float64)
    total = torch.zeros(2, 1, 4 * stride + side, 3 * stride + side, dtype=torch.float64)
    number = torch.zeros_like(total)
    for row in range(5):
        for column in range(4):
            area = (..., slice(row * stride, row * stride + side), slice(column * stride, column * stride + side))
            total[area] += scores[:, :, row, column, None, None]
            number[area] += 1
    torch.testing.assert_close(spread(scores, side, stride), total / number)
    constant = spread(torch.full_like(scores, 0.7), side, stride)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.7))


def test_maps_are_combined_and_the_score_is_the_maximum() -> None:
    large, small = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    expected = {"product": large * small, "sum": large + small, "large": large, "small": small}
    for combine, anomaly_map in expected.items():
        predictions = AnomalyMapGenerator(combine)(large, small)
        assert torch.equal(predictions.anomaly_map, anomaly_map)
        assert torch.equal(predictions.pred_score, anomaly_map.amax(dim=(1, 2, 3)))
    with pytest.raises(ValueError, match="combine='mean': use one of product"):
        AnomalyMapGenerator("mean")
