# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images that count: every one of a data set once, however many processes share it."""

import pytest
import torch
from anomalib.data import ImageBatch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from anomalib_mediclip.evaluation.selection import not_repeated, select


def counted_by(rank: int, processes: int, size: int, batch_size: int) -> list[int]:
    dataset = TensorDataset(torch.arange(size))
    sampler = DistributedSampler(dataset, num_replicas=processes, rank=rank, shuffle=False)
    loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler)
    found: list[int] = []
    for index, (numbers,) in enumerate(loader):
        batch = ImageBatch(image=torch.zeros(len(numbers), 3, 2, 2))
        found += numbers[not_repeated(loader, batch, index)].tolist()
    return found


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [4, 7, 12, 13])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_every_image_counts_once(processes: int, size: int, batch_size: int) -> None:
    counted = [number for rank in range(processes) for number in counted_by(rank, processes, size, batch_size)]
    assert sorted(counted) == list(range(size))


def test_loaders_of_one_process_and_lists_of_them() -> None:
    loader = DataLoader(TensorDataset(torch.arange(3)), batch_size=2)
    batch = ImageBatch(image=torch.zeros(2, 3, 2, 2))
    for loaders in (loader, [loader, loader], None):
        assert not_repeated(loaders, batch, 1).tolist() == [True, True]


def test_selected_images_keep_their_raw_predictions() -> None:
    batch = ImageBatch(image=torch.zeros(3, 3, 2, 2), pred_score=torch.tensor([0.1, 0.2, 0.3]))
    batch.raw_pred_score = torch.tensor([1.0, 2.0, 3.0])
    chosen = select(batch, torch.tensor([True, False, True]))
    assert chosen.raw_pred_score.tolist() == [1.0, 3.0]
    assert chosen.batch_size == 2
    assert select(batch, torch.ones(3, dtype=torch.bool)) is batch
