# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Which images of a batch count for a metric."""

from dataclasses import fields
from typing import Any

import torch
from anomalib.data import ImageBatch
from torch.utils.data import DistributedSampler

from anomalib_mediclip.evaluation.auroc import RAW


def select(batch: ImageBatch, chosen: torch.Tensor) -> ImageBatch:
    """Return some images of a batch, raw predictions included.

    Args:
        batch (ImageBatch): Batch.
        chosen (torch.Tensor): Bool of shape ``(B,)``.

    Returns:
        ImageBatch: The batch itself if all are chosen, else a smaller one of its tensors.
    """
    if chosen.all():
        return batch
    raw = {RAW + "pred_score", RAW + "anomaly_map"}
    selected: dict[str, Any] = {
        name: value[chosen.to(value.device)]
        for name in {*(field.name for field in fields(batch)), *raw}
        if isinstance(value := getattr(batch, name, None), torch.Tensor)
    }
    subset = ImageBatch(**{name: value for name, value in selected.items() if name not in raw})
    for name in raw & selected.keys():
        setattr(subset, name, selected[name])
    return subset


def outlined(batch: ImageBatch) -> torch.Tensor:
    """Tell which images have ground truth for their pixels: normal ones, and anomalous ones with a mask.

    Args:
        batch (ImageBatch): Batch with ground truth.

    Returns:
        torch.Tensor: Bool of shape ``(B,)``.
    """
    if batch.gt_mask is None or batch.gt_label is None:
        return torch.ones(batch.batch_size, dtype=torch.bool)
    known: torch.Tensor = batch.gt_mask.flatten(1).any(dim=1) | ~batch.gt_label.bool()
    return known


def not_repeated(loaders: Any, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
    """Tell which images of a batch are no repetition.

    Several processes share a data set. Where its size is no multiple of their number, some of them get an image again
    that another one has, so that all have the same number.

    Args:
        loaders (Any): Loader of the process, or a list of them.
        batch (ImageBatch): Batch of one of them.
        batch_idx (int): Number of the batch, from 0.
        dataloader_idx (int, optional): Number of the loader. Defaults to ``0``.

    Returns:
        torch.Tensor: Bool of shape ``(B,)``.
    """
    loader: Any = loaders[dataloader_idx] if isinstance(loaders, list) else loaders
    sampler = getattr(loader, "sampler", None)
    positions = torch.arange(batch.batch_size)
    if not isinstance(sampler, DistributedSampler):
        return positions >= 0
    of_process = batch_idx * loader.batch_size + positions
    of_data_set = sampler.rank + of_process * sampler.num_replicas  # where the sampler repeats, this runs over the end
    return torch.lt(of_data_set, len(loader.dataset))
