# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration: the threshold found on synthetic validation images becomes 0.5, and nothing changes its order."""

import logging
from typing import Any

import torch
from anomalib.data import Batch
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.post_processing import PostProcessor
from lightning import LightningModule, Trainer
from torchmetrics.utilities import dim_zero_cat

from anomalib_mediclip.evaluation.auroc import RAW

logger = logging.getLogger(__name__)


def calibrate(probability: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Shift the logit of a probability so that the threshold lands on 0.5.

    With p and t for probability and threshold this is sigmoid(logit(p) - logit(t)), written without logarithms:
    p (1 - t) / (p (1 - t) + t (1 - p)). It is strictly increasing in p, and maps 0, t and 1 to 0, 0.5 and 1.

    Args:
        probability (torch.Tensor): Probabilities in [0, 1], any shape.
        threshold (torch.Tensor): Scalar in (0, 1), or NaN for none.

    Returns:
        torch.Tensor: Calibrated probabilities, same shape; unchanged when the threshold is NaN.

    Example:
        >>> import torch
        >>> calibrate(torch.tensor([0.0, 0.2, 1.0]), torch.tensor(0.2))
        tensor([0.0000, 0.5000, 1.0000])
    """
    calibrated = torch.where(torch.isnan(threshold), 0.5, threshold).clamp(1e-6, 1 - 1e-6)
    anomalous = probability * (1 - calibrated)
    return anomalous / (anomalous + calibrated * (1 - probability))


class MidwayThreshold(F1AdaptiveThreshold):
    """Threshold of the best F1, midway between the two scores that it separates.

    anomalib's own threshold is the lowest score still called anomalous. Between that and the highest score called
    normal every value is equally good on the validation set; real lesions are subtler than synthetic ones, so the
    middle is the better guess.

    Example:
        >>> import torch
        >>> from anomalib.data import ImageBatch
        >>> batch = ImageBatch(
        ...     image=torch.rand(4, 3, 8, 8),
        ...     pred_score=torch.tensor([0.1, 0.2, 0.8, 0.9]),
        ...     gt_label=torch.tensor([0, 0, 1, 1]),
        ... )
        >>> threshold = MidwayThreshold(fields=["pred_score", "gt_label"])
        >>> threshold.update(batch)
        >>> threshold.compute()
        tensor(0.5000)
    """

    def compute(self) -> torch.Tensor:  # type: ignore[override]  # as anomalib declares it
        """Compute the threshold; with a single class present it is anomalib's fallback.

        Returns:
            torch.Tensor: Scalar.
        """
        threshold = super().compute()
        if self._update_count == 0 or not (self._has_anomalous_samples() and self._has_normal_samples()):
            return threshold
        scores = dim_zero_cat(self.preds)
        below = scores[scores < threshold]
        return (threshold + below.max()) / 2 if len(below) else threshold


class CalibrationPostProcessor(PostProcessor):
    """anomalib's post-processor with a strictly monotonic calibration in place of min-max scaling and clamping.

    It takes probabilities; for models whose scores are logits there is :class:`LogitCalibrationPostProcessor`.
    Image and pixel thresholds are those of the best F1 on the validation set (:class:`MidwayThreshold`); the validation
    set of this plugin's data modules is synthetic. What the model predicted is kept in the batch as ``raw_pred_score``
    and ``raw_anomaly_map``, for metrics that must not depend on the calibration.

    Args:
        enable_normalization (bool, optional): Whether to calibrate. Defaults to ``True``.
        enable_thresholding (bool, optional): Whether to look for thresholds, which the calibration needs too, and to
            predict labels and masks. Defaults to ``True``.
        enable_threshold_matching (bool, optional): Whether a missing threshold is taken from the other level.
            Defaults to ``True``.
        image_sensitivity (float, optional): Images above 1 minus this are anomalous. Defaults to ``0.5``.
        pixel_sensitivity (float, optional): Pixels above 1 minus this are anomalous. Defaults to ``0.5``.
    """

    def __init__(
        self,
        enable_normalization: bool = True,
        enable_thresholding: bool = True,
        enable_threshold_matching: bool = True,
        image_sensitivity: float = 0.5,
        pixel_sensitivity: float = 0.5,
    ) -> None:
        super().__init__(
            enable_normalization, enable_thresholding, enable_threshold_matching, image_sensitivity, pixel_sensitivity
        )
        self._image_threshold_metric = MidwayThreshold(fields=["pred_score", "gt_label"], strict=False)
        self._pixel_threshold_metric = MidwayThreshold(fields=["anomaly_map", "gt_mask"], strict=False)

    def on_validation_batch_end(  # type: ignore[override]  # as anomalib declares it
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Collect what the thresholds are computed from; the extremes, which anomalib collects too, play no part."""
        del trainer, pl_module, args, kwargs
        if not self.enable_thresholding:
            return
        self._image_threshold_metric.update(outputs)
        self._pixel_threshold_metric.update(outputs)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn when there is no threshold: the training was cut short, or had no validation set.

        Args:
            trainer (Trainer): Trainer.
            pl_module (LightningModule): Model.
        """
        del trainer, pl_module
        if self.enable_thresholding and self.image_threshold.isnan():
            logger.warning(
                "The scores are not calibrated: training did not reach its last epoch, where the synthetic validation "
                "set is predicted, or had none. Labels are cut at 0.5 of the uncalibrated probabilities. Resume the "
                "training with --ckpt_path to calibrate."
            )

    on_predict_start = on_test_start

    def normalize_batch(self, batch: Batch) -> None:
        """Calibrate a batch in place and keep its raw predictions beside.

        Args:
            batch (Batch): Batch with ``pred_score`` and ``anomaly_map``, as the model predicted them.
        """
        setattr(batch, RAW + "pred_score", batch.pred_score)
        setattr(batch, RAW + "anomaly_map", batch.anomaly_map)
        super().normalize_batch(batch)

    @staticmethod
    def _normalize(
        preds: torch.Tensor | None,
        norm_min: torch.Tensor,
        norm_max: torch.Tensor,
        threshold: torch.Tensor,
    ) -> torch.Tensor | None:
        """Calibrate instead of scaling; the extremes anomalib passes are not used."""
        del norm_min, norm_max
        return None if preds is None else calibrate(preds, threshold)


class LogitCalibrationPostProcessor(CalibrationPostProcessor):
    """The same calibration for models whose scores are logits: unbounded, and turned into probabilities only here.

    With s and t for score and threshold, which is a logit too, what is shown is sigmoid(s - t), or sigmoid(s) without a
    threshold: :func:`calibrate` of the probabilities. In float32, scores about d above the threshold are shown alike
    when they differ by less than 1.2e-7 exp(d) (3e-3 at 10), and above 17 all are shown as 1. ``raw_pred_score`` and
    ``raw_anomaly_map`` stay logits, so metrics on them know no such ties.

    Arguments are those of :class:`CalibrationPostProcessor`. Without ``enable_normalization`` the logits themselves are
    shown, and labels and masks are those of the uncalibrated probabilities.

    Example:
        >>> import torch
        >>> from anomalib.data import InferenceBatch
        >>> processor = LogitCalibrationPostProcessor()  # not calibrated yet
        >>> processor(InferenceBatch(pred_score=torch.tensor([-2.0, 0.0, 30.0]))).pred_score
        tensor([0.1192, 0.5000, 1.0000])
    """

    @property
    def normalized_image_threshold(self) -> torch.Tensor:
        """Where images are cut: 1 minus the sensitivity, in the units of what is shown."""
        return self._as_shown(super().normalized_image_threshold)

    @property
    def normalized_pixel_threshold(self) -> torch.Tensor:
        """Where pixels are cut: 1 minus the sensitivity, in the units of what is shown."""
        return self._as_shown(super().normalized_pixel_threshold)

    def _as_shown(self, probability: torch.Tensor) -> torch.Tensor:
        """Return a probability, or its logit when logits are shown."""
        return probability if self.enable_normalization else probability.logit()

    @staticmethod
    def _normalize(
        preds: torch.Tensor | None,
        norm_min: torch.Tensor,
        norm_max: torch.Tensor,
        threshold: torch.Tensor,
    ) -> torch.Tensor | None:
        """Shift the logits and turn them into probabilities."""
        del norm_min, norm_max
        shift = torch.where(torch.isnan(threshold), 0.0, threshold)
        return None if preds is None else (preds - shift).sigmoid()
