# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration: the threshold found on synthetic validation images becomes 0.5, and nothing changes its order."""

import logging
import math
from typing import Any, ClassVar, Literal

import torch
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.post_processing import PostProcessor
from lightning import LightningModule, Trainer
from torchmetrics.utilities import dim_zero_cat

from anomalib_mediclip.evaluation.auroc import RAW
from anomalib_mediclip.evaluation.false_alarms import expected_false_alarms
from anomalib_mediclip.evaluation.selection import not_repeated, select
from anomalib_mediclip.host.post_processor import OpenPostProcessor

logger = logging.getLogger(__name__)

ScoreKind = Literal["probability", "logit", "distance"]

NOT_CALIBRATED = (
    "The scores are not calibrated: the training was cut short, or had no validation images (limit_val_batches 0, or "
    "no validation set). Labels are cut at 0.5 of the uncalibrated probabilities. Resume the training with "
    "--ckpt_path, or validate the model with Engine.validate, to calibrate it."
)


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
        """Compute the threshold; without scores of both classes it is anomalib's fallback.

        Returns:
            torch.Tensor: Scalar.
        """
        threshold = super().compute()
        labels = dim_zero_cat(self.target) if self.update_called else torch.zeros(0, dtype=torch.bool)
        if not labels.any() or labels.all():
            return threshold
        scores = dim_zero_cat(self.preds)
        below = scores[scores < threshold]
        return (threshold + below.max()) / 2 if len(below) else threshold

    def normal_scores(self) -> torch.Tensor:
        """Return the scores of normal images ``(n,)`` that were collected, on all devices."""
        with self.sync_context():
            return dim_zero_cat(self.preds)[dim_zero_cat(self.target) == 0].detach()


class CalibrationPostProcessor(OpenPostProcessor):
    """anomalib's post-processor with a strictly monotonic calibration in place of min-max scaling and clamping.

    It takes probabilities. Models whose scores are logits or distances have :class:`LogitCalibrationPostProcessor` and
    :class:`DistanceCalibrationPostProcessor`. Image and pixel thresholds are those of the best F1 on the validation set
    (:class:`MidwayThreshold`); the validation set of this plugin's data modules is synthetic. The raw predictions of
    the model are kept in the batch as ``raw_pred_score`` and ``raw_anomaly_map``, for metrics that must not depend on
    the calibration.

    An option that is given holds; one that is None is taken from the checkpoint, if one is loaded.

    Args:
        enable_normalization (bool | None, optional): Whether to calibrate. Defaults to ``None``: yes.
        enable_thresholding (bool | None, optional): Whether to look for thresholds, which the calibration needs too,
            and to predict labels and masks. Defaults to ``None``: yes.
        enable_threshold_matching (bool | None, optional): Whether a missing threshold is taken from the other level.
            Defaults to ``None``: yes.
        image_sensitivity (float | None, optional): In [0, 1]; images above 1 minus this are anomalous.
            Defaults to ``None``: 0.5.
        pixel_sensitivity (float | None, optional): In [0, 1]; pixels above 1 minus this are anomalous.
            Defaults to ``None``: 0.5.

    Raises:
        ValueError: If a sensitivity is outside [0, 1].

    Attributes:
        SCORES (ScoreKind): Kind of raw scores that it takes.
        normal_scores (torch.Tensor): Raw scores ``(n,)`` of the normal images of the last validation.
    """

    SCORES: ClassVar[ScoreKind] = "probability"

    def __init__(
        self,
        enable_normalization: bool | None = None,
        enable_thresholding: bool | None = None,
        enable_threshold_matching: bool | None = None,
        image_sensitivity: float | None = None,
        pixel_sensitivity: float | None = None,
    ) -> None:
        options = {
            "enable_normalization": enable_normalization,
            "enable_thresholding": enable_thresholding,
            "enable_threshold_matching": enable_threshold_matching,
            "image_sensitivity": _checked_sensitivity("image_sensitivity", image_sensitivity),
            "pixel_sensitivity": _checked_sensitivity("pixel_sensitivity", pixel_sensitivity),
        }
        given = {name: value for name, value in options.items() if value is not None}
        super().__init__(
            MidwayThreshold(fields=["pred_score", "gt_label"], strict=False),
            MidwayThreshold(fields=["anomaly_map", "gt_mask"], strict=False),
            **given,
        )
        self._given = given
        self.normal_scores = torch.zeros(0)

    @property
    def expected_false_alarms(self) -> float:
        """Share of new normal images that will be called anomalous, estimated from the normal images of validation.

        It holds for images that are like those, at the sensitivity that is set. NaN if nothing was validated since the
        post-processor was made or loaded, or the normal images did not have two different scores.
        """
        sensitivity = torch.tensor(self.image_sensitivity, dtype=torch.float64)
        cut = self.evidence(self.image_threshold.double()) - sensitivity.logit()
        return expected_false_alarms(self.evidence(self.normal_scores.double()), cut.item())

    def for_scores(self, kind: ScoreKind) -> "CalibrationPostProcessor":
        """Return a post-processor with the same arguments for scores of another kind.

        Args:
            kind (ScoreKind): Kind of the scores.

        Returns:
            CalibrationPostProcessor: Post-processor without thresholds.
        """
        given: dict[str, Any] = self._given
        return POST_PROCESSORS[kind](**given)

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Take the options of a checkpoint, except those that were given."""
        super().load_checkpoint_config({**config, **self._given})

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any = None,
        batch_idx: int = 0,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the scores for the thresholds; the extremes, which anomalib collects too, play no part."""
        del pl_module, batch
        counts = not_repeated(getattr(trainer, "val_dataloaders", None), outputs, batch_idx, dataloader_idx)
        if self.enable_thresholding and counts.any():
            self.update_thresholds(select(outputs, counts))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn when there is no threshold: the training was cut short, or had no validation set."""
        del trainer, pl_module
        if self.enable_thresholding and self.image_threshold.isnan():
            logger.warning("%s", NOT_CALIBRATED)

    on_predict_start = on_test_start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the thresholds, and keep the scores of normal images for :attr:`expected_false_alarms`."""
        if self.enable_thresholding and self.image_threshold_metric.update_called:
            self.normal_scores = self.image_threshold_metric.normal_scores()
        super().on_validation_epoch_end(trainer, pl_module)

    def evidence(self, scores: torch.Tensor) -> torch.Tensor:
        """Return scores on the scale without bounds on which the calibration subtracts the threshold."""
        return scores.logit()

    def from_evidence(self, evidence: torch.Tensor) -> torch.Tensor:
        """Return the scores that have an evidence: the inverse of :meth:`evidence`."""
        return evidence.sigmoid()

    def threshold_for_cut(self, cut: float) -> torch.Tensor:
        """Return the image threshold with which the images that are shown above a value now are called anomalous.

        All kinds of scores are shown as sigmoid(e(s) - e(t)), where e is the :meth:`evidence`, and are cut at 1 minus
        the sensitivity. So e(t') = e(t) + logit(cut) - logit(1 - sensitivity).

        Args:
            cut (float): Shown value, in (0, 1).

        Returns:
            torch.Tensor: Threshold in raw scores, scalar, float32.

        Raises:
            ValueError: If nothing is calibrated or the calibration is off, or if no finite threshold cuts there.
        """
        if self.image_threshold.isnan() or not self.enable_normalization:
            msg = f"There is no calibrated threshold to move. {NOT_CALIBRATED}"
            raise ValueError(msg)
        if not (0 < cut < 1 and 0 < self.image_sensitivity < 1):
            msg = (
                f"The threshold {cut} cannot be set at a sensitivity of {self.image_sensitivity}: both must lie "
                "between 0 and 1, in the units of the shown scores."
            )
            raise ValueError(msg)
        shift = torch.tensor([cut, self.image_sensitivity], dtype=torch.float64).logit().sum()
        return self.from_evidence(self.evidence(self.image_threshold.double()) + shift).float()

    def normalize_batch(self, batch: Any) -> None:
        """Calibrate a batch in place, and keep its raw predictions beside the calibrated ones."""
        setattr(batch, RAW + "pred_score", batch.pred_score)
        setattr(batch, RAW + "anomaly_map", batch.anomaly_map)
        super().normalize_batch(batch)

    def normalize(self, scores: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """Calibrate probabilities; see :func:`calibrate`."""
        return calibrate(scores, threshold)


class LogitCalibrationPostProcessor(CalibrationPostProcessor):
    """The same calibration for models whose scores are logits: unbounded, and turned into probabilities only here.

    With s and t for score and threshold, which is a logit too, the shown value is sigmoid(s - t), or sigmoid(s) without
    a threshold: :func:`calibrate` of the probabilities. In float32, scores about d above the threshold are shown alike
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

    SCORES: ClassVar[ScoreKind] = "logit"

    def evidence(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores: they are logits."""
        return scores

    def from_evidence(self, evidence: torch.Tensor) -> torch.Tensor:
        """Return the evidence: it is the score."""
        return evidence

    @property
    def normalized_image_threshold(self) -> torch.Tensor:
        """Cut of images: 1 minus the sensitivity, in the units of the shown values."""
        return self._as_shown(super().normalized_image_threshold)

    @property
    def normalized_pixel_threshold(self) -> torch.Tensor:
        """Cut of pixels: 1 minus the sensitivity, in the units of the shown values."""
        return self._as_shown(super().normalized_pixel_threshold)

    def _as_shown(self, probability: torch.Tensor) -> torch.Tensor:
        """Return a probability, or its logit when logits are shown."""
        return probability if self.enable_normalization else probability.logit()

    def normalize(self, scores: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """Shift logits by the threshold and turn them into probabilities."""
        return (scores - torch.where(torch.isnan(threshold), 0.0, threshold)).sigmoid()


class DistanceCalibrationPostProcessor(CalibrationPostProcessor):
    """The same calibration for models whose scores are distances or errors: 0 or more, and unbounded.

    With s and t for score and threshold the shown value is s / (s + t), which maps 0, t and infinity to 0, 0.5 and 1
    and is strictly increasing. Without a threshold, t is 1.

    Arguments are those of :class:`CalibrationPostProcessor`. Without ``enable_normalization`` the distances themselves
    are shown, and labels and masks are cut where the calibrated values would be.

    Example:
        >>> import torch
        >>> from anomalib.data import InferenceBatch
        >>> processor = DistanceCalibrationPostProcessor()  # not calibrated yet
        >>> processor(InferenceBatch(pred_score=torch.tensor([0.0, 1.0, 3.0]))).pred_score
        tensor([0.0000, 0.5000, 0.7500])
    """

    SCORES: ClassVar[ScoreKind] = "distance"

    def evidence(self, scores: torch.Tensor) -> torch.Tensor:
        """Return logarithms of distances: s / (s + t) is sigmoid(log s - log t)."""
        return scores.log()

    def from_evidence(self, evidence: torch.Tensor) -> torch.Tensor:
        """Return the distances of which these are the logarithms."""
        return evidence.exp()

    @property
    def normalized_image_threshold(self) -> torch.Tensor:
        """Cut of images: 1 minus the sensitivity, in the units of the shown values."""
        return self._as_shown(super().normalized_image_threshold, self.image_threshold)

    @property
    def normalized_pixel_threshold(self) -> torch.Tensor:
        """Cut of pixels: 1 minus the sensitivity, in the units of the shown values."""
        return self._as_shown(super().normalized_pixel_threshold, self.pixel_threshold)

    def _as_shown(self, calibrated: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """Return a calibrated value, or the distance that it stands for when distances are shown."""
        return calibrated if self.enable_normalization else _scale(threshold) * calibrated / (1 - calibrated)

    def normalize(self, scores: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """Relate distances to the threshold."""
        return scores / (scores + _scale(threshold))


def describe_thresholds(processor: Any) -> dict[str, float | None]:
    """Describe where a post-processor cuts scores.

    Args:
        processor (Any): Post-processor of anomalib, or none.

    Returns:
        dict[str, float | None]: Thresholds of images and pixels in raw scores, None where there is none, and their
        sensitivities; empty without a post-processor of anomalib.
    """
    if not isinstance(processor, PostProcessor):
        return {}
    found = {"image_threshold": processor.image_threshold, "pixel_threshold": processor.pixel_threshold}
    return {
        **{name: None if value.isnan() else value.item() for name, value in found.items()},
        "image_sensitivity": float(processor.image_sensitivity),
        "pixel_sensitivity": float(processor.pixel_sensitivity),
    }


def expected_false_alarms_of(processor: Any) -> float | None:
    """Return the share of normal images that a post-processor expects to call anomalous.

    Args:
        processor (Any): Post-processor of anomalib, or none.

    Returns:
        float | None: Share in [0, 1]; None where it is not known.
    """
    alarms = getattr(processor, "expected_false_alarms", math.nan)
    return None if math.isnan(alarms) else float(alarms)


def _checked_sensitivity(name: str, value: float | None) -> float | None:
    """Return a sensitivity if it is in [0, 1]; beyond, everything or nothing would be anomalous."""
    if value is not None and not 0 <= value <= 1:
        msg = f"{name}={value}: it must be in [0, 1]; scores above 1 minus {name} are anomalous (0.5 by default)."
        raise ValueError(msg)
    return value


def _scale(threshold: torch.Tensor) -> torch.Tensor:
    """Return the distance that is shown as 0.5; never 0, or a distance of 0 would be shown as NaN."""
    return torch.where(torch.isnan(threshold), 1.0, threshold).clamp(min=torch.finfo(torch.float32).tiny)


POST_PROCESSORS: dict[ScoreKind, type[CalibrationPostProcessor]] = {
    processor.SCORES: processor
    for processor in (CalibrationPostProcessor, LogitCalibrationPostProcessor, DistanceCalibrationPostProcessor)
}
