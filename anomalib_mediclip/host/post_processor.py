# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's post-processor, opened in two places that are private there: threshold metrics and normalisation."""

from abc import abstractmethod
from typing import Any

import torch
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.post_processing import PostProcessor


def forget_thresholds(processor: PostProcessor) -> None:
    """Leave a post-processor without thresholds, as before its first validation.

    Args:
        processor (PostProcessor): Post-processor, changed in place.
    """
    for statistic in processor.buffers(recurse=False):
        statistic.fill_(float("nan"))


class OpenPostProcessor(PostProcessor):
    """Post-processor whose thresholds and normalisation a subclass decides through public names.

    Args:
        image_threshold_metric (F1AdaptiveThreshold): Metric that finds the threshold of images.
        pixel_threshold_metric (F1AdaptiveThreshold): Metric that finds the threshold of pixels.
        **options (Any): Arguments of anomalib's ``PostProcessor``.
    """

    def __init__(
        self, image_threshold_metric: F1AdaptiveThreshold, pixel_threshold_metric: F1AdaptiveThreshold, **options: Any
    ) -> None:
        super().__init__(**options)
        self._image_threshold_metric = image_threshold_metric
        self._pixel_threshold_metric = pixel_threshold_metric

    @property
    def image_threshold_metric(self) -> Any:
        """Metric that finds the threshold of images."""
        return self._image_threshold_metric

    def update_thresholds(self, outputs: Any) -> None:
        """Collect the scores from which the thresholds are computed when the validation ends.

        Args:
            outputs (Any): Batch of the validation set with raw predictions.
        """
        self._image_threshold_metric.update(outputs)
        self._pixel_threshold_metric.update(outputs)

    @abstractmethod
    def normalize(self, scores: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """Turn raw scores into probabilities.

        Args:
            scores (torch.Tensor): Raw scores of any shape.
            threshold (torch.Tensor): Scalar; NaN where none was found.

        Returns:
            torch.Tensor: Values in [0, 1] of the same shape.
        """

    def _normalize(  # type: ignore[override]  # a static method in anomalib
        self,
        preds: torch.Tensor | None,
        norm_min: torch.Tensor,
        norm_max: torch.Tensor,
        threshold: torch.Tensor,
    ) -> torch.Tensor | None:
        """Call :meth:`normalize` where anomalib scales between the extremes of the validation set."""
        del norm_min, norm_max
        return None if preds is None else self.normalize(preds, threshold)
