# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The calibration changes what is shown, never the order."""

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch

from anomalib_mediclip import CalibrationPostProcessor
from anomalib_mediclip.evaluation import calibrate, exact_auroc

THRESHOLDS = (0.001, 0.2, 0.5, 0.9, 0.999)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_is_the_shift_of_the_logit_that_moves_the_threshold_to_one_half(threshold: float) -> None:
    probabilities = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    expected = torch.sigmoid(torch.logit(probabilities) - torch.logit(torch.tensor(threshold, dtype=torch.float64)))
    torch.testing.assert_close(calibrate(probabilities, torch.tensor(threshold, dtype=torch.float64)), expected)
    ends = calibrate(torch.tensor([0.0, threshold, 1.0]), torch.tensor(threshold))
    torch.testing.assert_close(ends, torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_is_strictly_increasing(threshold: float) -> None:
    probabilities = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    assert (calibrate(probabilities, torch.tensor(threshold)).diff() > 0).all()


def test_without_threshold_nothing_changes() -> None:
    probabilities = torch.rand(10)
    torch.testing.assert_close(calibrate(probabilities, torch.tensor(float("nan"))), probabilities)


def calibrated_processor(images: int = 8) -> CalibrationPostProcessor:
    processor = CalibrationPostProcessor()
    maps = torch.linspace(0.1, 0.6, images).view(-1, 1, 1).expand(-1, 4, 4).contiguous()
    labels = torch.arange(images) >= images // 2
    batch = ImageBatch(
        image=torch.rand(images, 3, 4, 4),
        anomaly_map=maps,
        pred_score=maps.amax(dim=(1, 2)),
        gt_label=labels,
        gt_mask=labels.view(-1, 1, 1).expand(-1, 4, 4).contiguous(),
    )
    processor.on_validation_batch_end(None, None, batch)
    processor.on_validation_epoch_end(None, None)
    return processor


def maps_score(index: int, images: int = 8) -> float:
    return torch.linspace(0.1, 0.6, images)[index].item()


def test_threshold_comes_from_validation_and_becomes_one_half() -> None:
    processor = calibrated_processor()
    assert processor.image_threshold.item() == pytest.approx((maps_score(3) + maps_score(4)) / 2)
    predictions = processor(
        InferenceBatch(pred_score=torch.tensor([0.2, 0.7]), anomaly_map=torch.tensor([0.2, 0.7]).view(2, 1, 1, 1))
    )
    assert predictions.pred_label.tolist() == [False, True]
    assert predictions.pred_score[0] < 0.5 < predictions.pred_score[1]


def test_batches_keep_their_raw_predictions() -> None:
    processor = calibrated_processor()
    scores = torch.rand(64)
    batch = ImageBatch(image=torch.rand(64, 3, 4, 4), pred_score=scores.clone(), anomaly_map=torch.rand(64, 4, 4))
    processor.post_process_batch(batch)
    assert torch.equal(batch.raw_pred_score, scores)
    assert not torch.allclose(batch.pred_score, scores)
    labels = torch.rand(64) > 0.5
    assert exact_auroc(batch.pred_score, labels) == exact_auroc(scores, labels)


def test_state_survives_a_checkpoint() -> None:
    restored = CalibrationPostProcessor()
    restored.load_state_dict(calibrated_processor().state_dict())
    assert restored.image_threshold == calibrated_processor().image_threshold
