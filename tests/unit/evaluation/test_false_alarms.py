# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The share of normal images that a threshold calls anomalous is estimated without a bias towards few."""

import math

import pytest
import torch
from anomalib.data import ImageBatch
from scipy.stats import norm, t

from anomalib_mediclip import CalibrationPostProcessor
from anomalib_mediclip.evaluation import DistanceCalibrationPostProcessor, LogitCalibrationPostProcessor
from anomalib_mediclip.evaluation.false_alarms import expected_false_alarms

NORMAL = torch.tensor([-2.0, -1.5, -1.1, -0.4])
ANOMALOUS = torch.tensor([-0.9, 0.3, 0.8, 1.0])


def test_is_the_upper_tail_of_students_t() -> None:
    spread = NORMAL.std().item() * math.sqrt(1 + 1 / 4)
    expected = t.sf((0.2 - NORMAL.mean().item()) / spread, df=3)
    assert expected_false_alarms(NORMAL, 0.2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("number", [2, 4, 16])
def test_new_values_exceed_the_cut_as_often_as_expected(number: int) -> None:
    draws = torch.randn(20_000, number, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cuts = draws.mean(dim=1) + 1.5 * draws.std(dim=1)
    (expected,) = {round(expected_false_alarms(row, cut.item()), 6) for row, cut in zip(draws[:5], cuts, strict=False)}
    assert norm.sf(cuts.numpy()).mean() == pytest.approx(expected, abs=0.005)


def test_more_images_and_higher_cuts_promise_fewer() -> None:
    found = [expected_false_alarms(NORMAL, cut) for cut in (-2.0, -1.0, 0.0, 1.0)]
    assert found == sorted(found, reverse=True)
    assert expected_false_alarms(NORMAL.repeat(4), 0.5) < expected_false_alarms(NORMAL, 0.5)


@pytest.mark.parametrize("evidence", [[], [1.0], [1.0, 1.0], [1.0, math.inf], [1.0, math.nan]])
def test_nothing_is_promised_without_a_spread(evidence: list[float]) -> None:
    assert math.isnan(expected_false_alarms(torch.tensor(evidence), 0.0))


def calibrated(processor: CalibrationPostProcessor, scores: torch.Tensor) -> CalibrationPostProcessor:
    labels = torch.arange(len(scores)) >= len(NORMAL)
    batch = ImageBatch(image=torch.rand(len(scores), 3, 8, 8), pred_score=scores, gt_label=labels)
    processor.on_validation_batch_end(None, None, batch)
    processor.on_validation_epoch_end(None, None)
    return processor


@pytest.mark.parametrize("sensitivity", [0.2, 0.5, 0.9])
def test_kinds_of_scores_promise_alike(sensitivity: float) -> None:
    logits = torch.cat([NORMAL, ANOMALOUS])
    given = {"image_sensitivity": sensitivity}
    found = {
        calibrated(LogitCalibrationPostProcessor(**given), logits).expected_false_alarms,
        calibrated(CalibrationPostProcessor(**given), logits.sigmoid()).expected_false_alarms,
        calibrated(DistanceCalibrationPostProcessor(**given), logits.exp()).expected_false_alarms,
    }
    # the threshold lies midway between two scores, and the middle depends on the scale
    assert max(found) - min(found) < 0.01
    cut = -1.0 - math.log(sensitivity / (1 - sensitivity))  # midway between -1.1 and -0.9
    assert max(found) == pytest.approx(expected_false_alarms(NORMAL, cut), abs=0.03)


def test_nothing_is_promised_before_a_validation() -> None:
    assert math.isnan(LogitCalibrationPostProcessor().expected_false_alarms)
