# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The exact AUROC."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.evaluation import AUROC, exact_auroc


def test_ties_count_one_half() -> None:
    assert exact_auroc(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0, 1, 0])).item() == 0.5
    assert exact_auroc(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([0, 0, 1, 1])).item() == 0.875


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_equals_scikit_learn_with_and_without_ties(decimals: int) -> None:
    random = np.random.default_rng(decimals)
    labels = random.integers(0, 2, 5000)
    scores = (random.normal(size=5000) + labels).round(decimals).astype(np.float32)
    ours = exact_auroc(torch.from_numpy(scores), torch.from_numpy(labels)).item()
    assert ours == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("transform", [lambda x: 1000 * x, lambda x: x - 50, torch.exp, lambda x: -1 / (x + 100)])
def test_depends_on_the_order_only(transform) -> None:
    """Torchmetrics saturates scores outside [0, 1]: PatchCore's distances 'always report AUROC 0.5'."""
    scores, labels = torch.linspace(-3, 3, 101, dtype=torch.float64), (torch.arange(101) * 7 % 13 > 5)
    assert exact_auroc(transform(scores), labels) == exact_auroc(scores, labels)


def test_one_class_is_undefined_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert exact_auroc(torch.rand(4), torch.ones(4)).isnan()
    assert "0 normal and 4 anomalous" in caplog.text


def test_nan_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        exact_auroc(torch.tensor([0.1, float("nan")]), torch.tensor([0, 1]))


def test_metric_accumulates_batches_and_prefers_raw_predictions() -> None:
    metric = AUROC(fields=["pred_score", "gt_label"], prefix="image_")
    for raw, label in (([1.0, 2.0], [0, 1]), ([3.0, 4.0], [0, 1])):
        batch = ImageBatch(image=torch.rand(2, 3, 8, 8), pred_score=torch.ones(2), gt_label=torch.tensor(label))
        batch.raw_pred_score = torch.tensor(raw)
        metric.update(batch)
    assert metric.name == "image_AUROC"
    assert metric.compute().item() == 0.75
