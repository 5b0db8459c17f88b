# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Test metrics of the plugin's models."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, cast

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AnomalibMetric, Evaluator, F1Score
from lightning import LightningModule, Trainer
from torch.nn import ModuleList
from torchmetrics import Metric

from anomalib_mediclip.evaluation.auroc import AUROC


class MedicalEvaluator(Evaluator):
    """Exact AUROC and F1 at the calibrated threshold, for images and, where there are masks, for pixels.

    An anomalous image whose mask is empty is one whose lesion was not outlined (in many medical sets only some are):
    it counts for the image metrics and is left out of the pixel metrics.
    """

    def __init__(self) -> None:
        super().__init__(
            test_metrics=[
                AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
                F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
                AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
                F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
            ]
        )

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the metrics with a batch."""
        del trainer, pl_module, outputs, batch_idx, dataloader_idx
        known = outlined(batch)
        for metric in cast("Iterable[AnomalibMetric]", self.test_metrics):
            pixel_level = "gt_mask" in metric.fields
            if not pixel_level or known.all():
                metric.update(batch)
            elif known.any():
                metric.update(_select(batch, known))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics that had something to measure: no pixel metrics for a set without masks."""
        if trainer.world_size > 1:  # what one process has not seen another may have; all must compute alike
            super().on_test_epoch_end(trainer, pl_module)
            return
        metrics = self.test_metrics
        self.test_metrics = ModuleList(metric for metric in metrics if cast("Metric", metric).update_called)
        super().on_test_epoch_end(trainer, pl_module)
        self.test_metrics = metrics


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


def _select(batch: ImageBatch, chosen: torch.Tensor) -> ImageBatch:
    """Return some images of a batch, raw predictions included."""
    selected: dict[str, Any] = {}
    for name in [*(field.name for field in fields(batch)), "raw_pred_score", "raw_anomaly_map"]:
        value = getattr(batch, name, None)
        if isinstance(value, torch.Tensor):
            selected[name] = value[chosen.to(value.device)]
    raw = {name: selected.pop(name) for name in list(selected) if name.startswith("raw_")}
    subset = ImageBatch(**selected)
    for name, value in raw.items():
        setattr(subset, name, value)
    return subset
