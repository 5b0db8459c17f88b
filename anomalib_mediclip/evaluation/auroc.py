# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Exact area under the ROC curve, on raw scores.

anomalib's own AUROC is computed after scores were clamped to [0, 1], which ties the most anomalous images, and
torchmetrics passes values outside [0, 1] through a sigmoid that saturates. Here it is the rank statistic itself
(Mann and Whitney, 1947): the share of pairs of a normal and an anomalous sample that are in the right order, a tie
counting one half. It depends on the order of the scores only. Above 67 million scores, which only pixels reach, it is
taken from a summary of fixed size.
"""

import logging
from typing import Any

import torch
from anomalib.metrics import AnomalibMetric
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from anomalib_mediclip.evaluation.rank_summary import sort_, summarise, summary_auroc, thin

logger = logging.getLogger(__name__)

EXACT_LIMIT = 2**26  # scores: the pixels of 1337 images of 224 x 224, 0.3 GB

RAW = "raw_"  # prefix of the fields in which the post-processor keeps what the model predicted


def exact_auroc(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the exact AUROC.

    Args:
        scores (torch.Tensor): Scores of any real range, shape ``(N,)``; higher means more anomalous.
        labels (torch.Tensor): Ground truth of shape ``(N,)``, true where anomalous.

    Returns:
        torch.Tensor: Scalar float64 in [0, 1]; NaN, with a warning, when only one class is present.

    Raises:
        ValueError: If a score is NaN.

    Example:
        >>> import torch
        >>> exact_auroc(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([0, 0, 1, 1])).item()
        0.875
    """
    _refuse_nan(scores)
    labels = labels.bool()
    normal, anomalous = sort_(scores[~labels]), sort_(scores[labels])
    if not len(normal) or not len(anomalous):
        _warn_of_one_class(len(normal), len(anomalous))
        return torch.tensor(float("nan"), dtype=torch.float64)
    below = torch.searchsorted(normal, anomalous, right=False).sum()
    not_above = torch.searchsorted(normal, anomalous, right=True).sum()
    return (below + not_above).double() / (2 * len(normal) * len(anomalous))


def _refuse_nan(scores: torch.Tensor) -> None:
    """Raise if there are scores without an order."""
    if scores.isnan().any():
        msg = f"{int(scores.isnan().sum())} of {scores.numel()} scores are NaN: the model diverged; train it again."
        raise ValueError(msg)


def _warn_of_one_class(normal: int, anomalous: int) -> None:
    """Say why there is no AUROC."""
    logger.warning("AUROC is undefined: %d normal and %d anomalous samples.", normal, anomalous)


class _ExactAUROC(Metric):
    """Collects scores and labels over batches; see :func:`exact_auroc`.

    What exceeds ``EXACT_LIMIT`` scores in one process is summarised, so that memory does not grow with the test set;
    see :mod:`anomalib_mediclip.evaluation.rank_summary`.
    """

    higher_is_better = True
    full_state_update = False

    scores: list[torch.Tensor]
    labels: list[torch.Tensor]
    summary: list[torch.Tensor]

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        for state in ("scores", "labels", "summary"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, scores: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch of scores and labels of equal shape."""
        self.scores.append(scores.flatten())
        self.labels.append(labels.flatten().bool())
        if not self.summary:  # processes exchange what they have, which must be a tensor even if it is empty
            self.summary.append(torch.empty(0, 3, dtype=torch.float64, device=scores.device))
        if sum(map(len, self.scores)) > EXACT_LIMIT:
            self.summary = [thin(self._all_summarised())]
            self.scores, self.labels = [scores.new_empty(0)], [self.labels[0].new_empty(0)]

    def compute(self) -> torch.Tensor:
        """Compute the AUROC of everything added."""
        if not len(dim_zero_cat(self.summary)):
            return exact_auroc(dim_zero_cat(self.scores), dim_zero_cat(self.labels)).float()
        summary = self._all_summarised()
        normal, anomalous = summary[:, 1:].sum(dim=0).tolist()
        if not normal or not anomalous:
            _warn_of_one_class(int(normal), int(anomalous))
        return summary_auroc(summary).float()

    def _all_summarised(self) -> torch.Tensor:
        """Return the summary, with the scores that are not in it yet."""
        self.scores, self.labels = [dim_zero_cat(self.scores)], [dim_zero_cat(self.labels)]  # not twice in memory
        _refuse_nan(self.scores[0])
        return torch.cat([dim_zero_cat(self.summary), summarise(self.scores[0], self.labels[0])])


class AUROC(AnomalibMetric, _ExactAUROC):
    """Exact AUROC as a metric of anomalib, on what the model predicted before calibration.

    It is exact up to 67 million scores in a process, and within 1e-4 up to 50 times as many.

    Args:
        fields (Sequence[str] | None): Predicted and true field of a batch, such as ``["pred_score", "gt_label"]``.
        prefix (str, optional): Prefix of the metric's name. Defaults to ``""``.
        strict (bool, optional): Whether a batch without these fields is an error. Defaults to ``True``.

    Example:
        >>> import torch
        >>> from anomalib.data import ImageBatch
        >>> batch = ImageBatch(
        ...     image=torch.rand(2, 3, 8, 8), pred_score=torch.tensor([-5.0, 90.0]), gt_label=torch.tensor([0, 1])
        ... )
        >>> metric = AUROC(fields=["pred_score", "gt_label"])
        >>> metric.update(batch)
        >>> metric.compute()
        tensor(1.)
    """

    def update(self, batch: Any) -> None:  # type: ignore[override]
        """Add a batch, taking the raw form of a field where the post-processor has kept one."""
        shown = self.fields
        self.fields = [RAW + name if getattr(batch, RAW + name, None) is not None else name for name in shown]
        try:
            super().update(batch)
        finally:
            self.fields = shown
