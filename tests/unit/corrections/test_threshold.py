# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The threshold that a review asks for."""

import pytest

from anomalib_mediclip.corrections.threshold import chosen_cut
from anomalib_mediclip.prediction.review import Review, ReviewedImage


def review_of(scores: list[float | None], threshold: float) -> Review:
    return Review(tuple(ReviewedImage(f"{i}.png", score=score) for i, score in enumerate(scores)), threshold, "0" * 64)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.4, 0.4), (0.3, 0.5), (0.3 + 1e-7, 0.5), (0.3 - 1e-7, 0.2), (0.7, 0.85), (0.1 - 1e-7, 0.1 - 1e-7)],
)
def test_it_keeps_clear_of_scores_and_on_the_same_side_of_all(threshold: float, expected: float) -> None:
    scores = [0.1, None, 0.3, 0.7]
    cut = chosen_cut(review_of(scores, threshold))
    assert [score > cut for score in scores if score] == [score > threshold for score in scores if score]
    assert cut == pytest.approx(expected, abs=0.06)


def test_scores_that_are_not_calibrated_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not calibrated: they leave \[0, 1\]"):
        chosen_cut(review_of([-3.0, 0.5], 0.4))
