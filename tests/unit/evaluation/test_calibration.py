# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The calibration changes what is shown, never the order."""

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from sklearn.metrics import roc_auc_score

from anomalib_mediclip import AUROC, CalibrationPostProcessor
from anomalib_mediclip.evaluation import (
    DistanceCalibrationPostProcessor,
    LogitCalibrationPostProcessor,
    calibrate,
    exact_auroc,
)

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


def logit_batch(logits: list[float], labels: list[int]) -> ImageBatch:
    """Return images each of which has the same logit everywhere and is anomalous everywhere or nowhere."""
    scores, is_anomalous = torch.tensor(logits), torch.tensor(labels).bool()
    return ImageBatch(
        image=torch.rand(len(logits), 3, 4, 4),
        anomaly_map=scores.view(-1, 1, 1).expand(-1, 4, 4).contiguous(),
        pred_score=scores,
        gt_label=is_anomalous,
        gt_mask=is_anomalous.view(-1, 1, 1).expand(-1, 4, 4).contiguous(),
    )


def logit_processor(logits: list[float], labels: list[int], **options) -> LogitCalibrationPostProcessor:
    """Return a processor that was calibrated on two validation batches."""
    processor = LogitCalibrationPostProcessor(**options)
    middle = len(logits) // 2
    for part in (slice(middle), slice(middle, None)):
        processor.on_validation_batch_end(None, None, logit_batch(logits[part], labels[part]))
    processor.on_validation_epoch_end(None, None)
    return processor


def shown(processor: LogitCalibrationPostProcessor, logits: list[float]) -> InferenceBatch:
    scores = torch.tensor(logits)
    return processor(InferenceBatch(pred_score=scores, anomaly_map=scores.view(-1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([-9.0, -5.0, 30.0, 40.0], 12.5),  # one side each of what a probability can be
        ([20.0, 21.0, 22.0, 24.0], 21.5),  # all of whose float32 probabilities are 1
        ([-9.0, -8.0, -6.0, -1.0], -7.0),
    ],
)
def test_threshold_of_logits_lies_midway_and_is_shown_as_one_half(logits: list[float], expected: float) -> None:
    processor = logit_processor(logits, [0, 0, 1, 1])
    assert processor.image_threshold.item() == expected
    assert processor.pixel_threshold.item() == expected
    predictions = shown(processor, [expected - 1, expected, expected + 1])
    around = torch.tensor([-1.0, 0.0, 1.0]).sigmoid()
    torch.testing.assert_close(predictions.pred_score, around)
    torch.testing.assert_close(predictions.anomaly_map.flatten(), around)
    assert predictions.pred_label.tolist() == predictions.pred_mask.flatten().tolist() == [False, False, True]


@pytest.mark.parametrize("threshold", [-7.0, 0.0, 2.5])
def test_calibrated_logits_are_the_calibrated_probabilities(threshold: float) -> None:
    logits = torch.linspace(-12, 12, 97, dtype=torch.float64)
    processor = LogitCalibrationPostProcessor().double()
    for name in ("_image_threshold", "_pixel_threshold"):
        processor.get_buffer(name).fill_(threshold)
    predictions = processor(InferenceBatch(pred_score=logits, anomaly_map=logits.view(-1, 1, 1, 1)))
    expected = calibrate(logits.sigmoid(), torch.tensor(threshold, dtype=torch.float64).sigmoid())
    torch.testing.assert_close(predictions.pred_score, expected)
    torch.testing.assert_close(predictions.anomaly_map.flatten(), expected)


def test_calibrated_logits_are_strictly_increasing_far_above_and_below_the_threshold() -> None:
    processor = logit_processor([18.0, 19.0, 21.0, 22.0], [0, 0, 1, 1])
    assert (shown(processor, torch.linspace(-40, 34, 500).tolist()).pred_score.diff() > 0).all()


def test_logits_without_threshold_become_their_probabilities_cut_at_one_half() -> None:
    predictions = shown(LogitCalibrationPostProcessor(), [-2.0, -0.1, 0.1, 30.0])
    torch.testing.assert_close(predictions.pred_score, torch.tensor([-2.0, -0.1, 0.1, 30.0]).sigmoid())
    assert predictions.pred_label.tolist() == predictions.pred_mask.flatten().tolist() == [False, False, True, True]


def test_sensitivity_is_a_probability_of_calibrated_logits() -> None:
    processor = logit_processor([0.0, 1.0, 3.0, 4.0], [0, 0, 1, 1], image_sensitivity=0.9, pixel_sensitivity=0.2)
    cut = torch.tensor([0.1, 0.8]).logit() + 2
    predictions = shown(processor, [cut[0] - 0.01, cut[0] + 0.01, cut[1] - 0.01, cut[1] + 0.01])
    assert predictions.pred_label.tolist() == [False, True, True, True]
    assert predictions.pred_mask.flatten().tolist() == [False, False, False, True]


def test_logits_that_are_not_normalised_are_shown_and_labelled_as_their_probabilities_would_be() -> None:
    processor = logit_processor([5.0, 6.0, 8.0, 9.0], [0, 0, 1, 1], enable_normalization=False, pixel_sensitivity=0.1)
    predictions = shown(processor, [-0.1, 0.1, 2.1, 2.3])
    assert predictions.pred_score.tolist() == pytest.approx([-0.1, 0.1, 2.1, 2.3])
    assert predictions.pred_label.tolist() == [False, True, True, True]
    assert predictions.pred_mask.flatten().tolist() == [False, False, False, True]  # logit(0.9) is 2.197


def test_auroc_is_that_of_the_logits_where_probabilities_tie() -> None:
    logits, labels = [18.0, 19.0, 20.0, 21.0, 400.0, -3.0], [0, 1, 0, 1, 1, 0]
    batch = logit_batch(logits, labels)
    LogitCalibrationPostProcessor().post_process_batch(batch)
    assert torch.equal(batch.raw_pred_score, torch.tensor(logits))
    assert torch.equal(batch.raw_anomaly_map, logit_batch(logits, labels).anomaly_map)
    assert (batch.pred_score == 1).sum() == 5
    for fields in (["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]):
        metric = AUROC(fields=fields)
        metric.update(batch)
        assert metric.compute().item() == pytest.approx(roc_auc_score(labels, logits)) == pytest.approx(8 / 9)


def test_state_of_logits_survives_a_checkpoint() -> None:
    processor = logit_processor([18.0, 19.0, 21.0, 22.0], [0, 0, 1, 1], image_sensitivity=0.9)
    restored = LogitCalibrationPostProcessor()
    restored.load_state_dict(processor.state_dict())
    restored.load_checkpoint_config(processor.checkpoint_config())
    logits = [15.0, 18.0, 20.0, 23.0]
    assert torch.equal(shown(restored, logits).pred_score, shown(processor, logits).pred_score)
    assert shown(restored, logits).pred_label.tolist() == [False, True, True, True]


def at_threshold(value: float, **options) -> DistanceCalibrationPostProcessor:
    processor = DistanceCalibrationPostProcessor(**options)
    processor.load_state_dict(
        processor.state_dict() | {"_image_threshold": torch.tensor(value), "_pixel_threshold": torch.tensor(value)}
    )
    return processor


@pytest.mark.parametrize("threshold", [1e-4, 0.3, 1.0, 250.0])
def test_distances_are_shown_relative_to_the_threshold_and_keep_their_order(threshold: float) -> None:
    distances = torch.cat([torch.zeros(1), threshold * torch.logspace(-3, 3, 200)])
    shown = at_threshold(threshold)(InferenceBatch(pred_score=distances)).pred_score
    torch.testing.assert_close(shown, distances / (distances + threshold))
    assert (shown.diff() > 0).all()
    assert shown[0] == 0
    assert at_threshold(threshold)(InferenceBatch(pred_score=torch.tensor([threshold]))).pred_score == 0.5


def test_distances_without_a_threshold_and_with_one_of_zero_are_numbers() -> None:
    distances = torch.tensor([0.0, 2.0])
    assert DistanceCalibrationPostProcessor()(
        InferenceBatch(pred_score=distances)
    ).pred_score.tolist() == pytest.approx([0, 2 / 3])
    assert at_threshold(0.0)(InferenceBatch(pred_score=distances)).pred_score.tolist() == [0, 1]


@pytest.mark.parametrize("sensitivity", [0.2, 0.5, 0.8])
def test_labels_of_distances_do_not_depend_on_whether_they_are_calibrated(sensitivity: float) -> None:
    generator = torch.Generator().manual_seed(0)  # a value on the cut could be rounded to either side of it
    scores, maps = 4 * torch.rand(200, generator=generator), 4 * torch.rand(200, 1, 4, 4, generator=generator)
    batch = InferenceBatch(pred_score=scores, anomaly_map=maps)
    options = {"image_sensitivity": sensitivity, "pixel_sensitivity": sensitivity}
    shown, raw = (at_threshold(0.4, enable_normalization=flag, **options)(batch) for flag in (True, False))
    assert torch.equal(shown.pred_label, raw.pred_label)
    assert torch.equal(shown.pred_mask, raw.pred_mask)
    assert torch.equal(raw.pred_score, batch.pred_score)
    assert 0 < raw.pred_label.float().mean() < 1


@pytest.mark.parametrize("value", [5, -1, 1.01])
@pytest.mark.parametrize("name", ["image_sensitivity", "pixel_sensitivity"])
def test_sensitivities_outside_their_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value}: it must be in \[0, 1\]"):
        CalibrationPostProcessor(**{name: value})


def test_options_that_are_given_hold_over_those_of_a_checkpoint() -> None:
    config = CalibrationPostProcessor(image_sensitivity=0.7, pixel_sensitivity=0.6).checkpoint_config()
    processor = CalibrationPostProcessor(image_sensitivity=0.9, enable_threshold_matching=False)
    processor.load_checkpoint_config(config)
    assert (processor.image_sensitivity, processor.pixel_sensitivity) == (0.9, 0.6)
    assert processor.enable_threshold_matching is False
    assert processor.enable_normalization is True


RAW_SCORES = {
    CalibrationPostProcessor: torch.linspace(0.02, 0.98, 49),
    LogitCalibrationPostProcessor: torch.linspace(-6, 6, 49),
    DistanceCalibrationPostProcessor: torch.linspace(0, 8, 49),
}


@pytest.mark.parametrize("sensitivity", [0.5, 0.3])
@pytest.mark.parametrize("kind", RAW_SCORES)
def test_a_threshold_moved_to_a_shown_value_cuts_there(kind, sensitivity: float) -> None:
    scores = RAW_SCORES[kind]
    processor = kind(image_sensitivity=sensitivity)
    processor._image_threshold.copy_(scores[20])
    shown = processor(InferenceBatch(pred_score=scores)).pred_score
    cut = ((shown[29] + shown[30]) / 2).item()
    processor._image_threshold.copy_(processor.threshold_for_cut(cut))
    moved = processor(InferenceBatch(pred_score=scores))
    assert torch.equal(moved.pred_label, shown > cut)
    assert torch.equal(moved.pred_label, moved.pred_score > 1 - sensitivity)


@pytest.mark.parametrize("cut", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_no_threshold_cuts_at_the_ends_or_beyond(cut: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1, in the units of the shown scores"):
        calibrated_processor().threshold_for_cut(cut)


def test_without_a_calibration_there_is_no_threshold_to_move() -> None:
    with pytest.raises(ValueError, match=r"no calibrated threshold to move\. The scores are not calibrated"):
        LogitCalibrationPostProcessor().threshold_for_cut(0.6)
    shows_logits = LogitCalibrationPostProcessor(enable_normalization=False)
    shows_logits._image_threshold.fill_(1)
    with pytest.raises(ValueError, match="no calibrated threshold to move"):
        shows_logits.threshold_for_cut(0.6)
