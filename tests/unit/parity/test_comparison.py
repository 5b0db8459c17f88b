# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Measures of a parity report, on predictions made up for it."""

import numpy as np
import pytest

from anomalib_mediclip.parity.comparison import Predictions, compare, predict_all, seconds_per_call
from anomalib_mediclip.parity.images import ComparedImages

SCORES = np.array([0.1, 0.6, 0.4, 0.9])
LABELS = np.array([False, False, True, True])


def predictions(scores: np.ndarray = SCORES, shift: float = 0.0, original: float = 0.0) -> Predictions:
    maps = np.full((4, 1, 2, 2), 0.25)
    maps[0, 0, 0, 0] += shift
    return Predictions(maps, scores, scores > 0.5, scores + original)


def test_no_difference_is_zero_everywhere() -> None:
    figures = compare(predictions(), predictions(), LABELS)
    assert figures.pop("rank_correlation") == pytest.approx(1)
    assert figures.pop("auroc") == 0.75
    assert set(figures.values()) == {0.0}


def test_every_difference_has_its_value() -> None:
    changed = predictions(np.array([0.1, 0.45, 0.4, 0.9]), shift=0.16, original=0.5)
    figures = compare(predictions(), changed, LABELS)
    assert figures["map_max"] == pytest.approx(0.16)
    assert figures["map_mean"] == pytest.approx(0.01)
    assert figures["score_max"] == pytest.approx(0.15)
    assert figures["score_mean"] == pytest.approx(0.15 / 4)
    assert figures["flipped_labels"] == 0.25
    assert figures["original_score_max"] == pytest.approx(0.5)
    assert figures["rank_correlation"] == pytest.approx(1)
    assert figures["auroc_change"] == 0


def test_an_exchange_of_ranks_shows_in_correlation_and_auroc() -> None:
    figures = compare(predictions(), predictions(np.array([0.1, 0.4, 0.6, 0.9])), LABELS)
    assert figures["rank_correlation"] == pytest.approx(0.8)
    assert (figures["auroc"], figures["auroc_change"]) == (1.0, 0.25)


@pytest.mark.parametrize("labels", [None, np.zeros(4, dtype=bool)])
def test_without_both_classes_there_is_no_auroc(labels) -> None:
    figures = compare(predictions(), predictions(), labels)
    assert np.isnan([figures["auroc"], figures["auroc_change"]]).all()


def test_numbers_that_are_not_finite_are_a_failure() -> None:
    with pytest.raises(ValueError, match="not finite"):
        compare(predictions(), predictions(shift=np.nan), LABELS)


def test_images_are_predicted_resized_and_as_they_are(sample_data) -> None:
    seen = []

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(images.shape)
        score = images.mean(axis=(1, 2, 3))
        return {"anomaly_map": images[:, :1], "pred_score": score, "pred_label": score > 0.5}

    paths = sorted((sample_data / "test" / "normal").glob("*.png"))[:9]
    predicted = predict_all(predict, ComparedImages(paths), (32, 48))
    assert seen[0] == (8, 3, 32, 48)
    assert seen[-2] == (1, 3, 32, 48)
    assert all(shape[0] == 1 and shape[2:] != (32, 48) for shape in [*seen[1:9], seen[-1]])
    assert predicted.maps.shape == (9, 1, 32, 48)
    np.testing.assert_allclose(predicted.scores, predicted.original_scores, atol=0.01)  # resizing keeps the mean


def test_a_call_that_is_not_counted_comes_first(monkeypatch) -> None:
    clock = iter([0.0, 0.2, 1.0, 1.4])
    monkeypatch.setattr("anomalib_mediclip.parity.comparison.time.perf_counter", lambda: next(clock))
    calls = []
    assert seconds_per_call(lambda images: calls.append(images) or {}, np.zeros(1)) == pytest.approx(0.3)
    assert len(calls) == 3
