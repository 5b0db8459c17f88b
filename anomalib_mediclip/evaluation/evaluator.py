# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Test metrics of the plugin's models."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AnomalibMetric, Evaluator, F1Score
from lightning import LightningModule, Trainer
from torch.nn import ModuleList

from anomalib_mediclip.evaluation.auroc import AUROC
from anomalib_mediclip.evaluation.selection import not_repeated, outlined, select


class MedicalEvaluator(Evaluator):
    """Exact AUROC and F1 at the calibrated threshold, for images and, where there are masks, for pixels.

    An anomalous image whose mask is empty is one whose lesion was not outlined (in many medical sets only some are):
    it counts for the image metrics and is left out of the pixel metrics, which are those with a field ``gt_mask``. With
    several processes no image counts twice.

    Args:
        val_metrics (Sequence[AnomalibMetric] | None, optional): Metrics of the validation set. With any, it is
            predicted in every epoch. Defaults to ``None``.
        test_metrics (Sequence[AnomalibMetric] | None, optional): Further metrics of the test set.
            Defaults to ``None``.

    Example:
        >>> from anomalib.metrics import AUPRO
        >>> evaluator = MedicalEvaluator(test_metrics=[AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_")])
        >>> [metric.name for metric in evaluator.test_metrics]
        ['image_AUROC', 'image_F1Score', 'pixel_AUROC', 'pixel_F1Score', 'pixel_AUPRO']
    """

    LEAVES_OUT_UNKNOWN_LESIONS = True  # asked for by data modules, which cannot know this class

    def __init__(
        self,
        val_metrics: Sequence[AnomalibMetric] | None = None,
        test_metrics: Sequence[AnomalibMetric] | None = None,
    ) -> None:
        own: list[Any] = [
            AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
            F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
            AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
            F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
        ]
        super().__init__(val_metrics=list(val_metrics or ()), test_metrics=[*own, *(test_metrics or ())])

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the metrics of validation with a batch."""
        del pl_module, outputs
        counts = not_repeated(trainer.val_dataloaders, batch, batch_idx, dataloader_idx)
        _update(self.val_metrics, batch, counts)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the metrics of the test with a batch."""
        del pl_module, outputs
        counts = not_repeated(getattr(trainer, "test_dataloaders", None), batch, batch_idx, dataloader_idx)
        _update(self.test_metrics, batch, counts)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics that had something to measure: no pixel metrics for a set without masks."""
        if trainer.world_size > 1:  # what one process has not seen another may have; all must compute alike
            super().on_test_epoch_end(trainer, pl_module)
            return
        metrics: Any = self.test_metrics
        self.test_metrics = ModuleList(metric for metric in metrics if metric.update_called)
        super().on_test_epoch_end(trainer, pl_module)
        self.test_metrics = metrics


def _update(metrics: Iterable[Any], batch: ImageBatch, counts: torch.Tensor) -> None:
    """Update metrics with the images of a batch that count, those of pixels with images of known pixels only."""
    known = counts & outlined(batch).cpu()
    for metric in metrics:
        chosen = known if "gt_mask" in metric.fields else counts
        if chosen.any():
            metric.update(select(batch, chosen))
