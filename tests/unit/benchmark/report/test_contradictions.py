# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Contradictions between the files of a benchmark."""

from pathlib import Path

import pandas as pd

from anomalib_mediclip.benchmark.report.contradictions import find_contradictions
from anomalib_mediclip.benchmark.results import read_results
from tests.unit.benchmark.small_benchmark import as_results, job

SCORES = pd.DataFrame({"image": ["a", "b"], "label": [0, 1], "A k4 seed0": [0.1, 0.2], "B k4 seed0": [0.1, 0.2]})


def test_sound_benchmark_has_none(benchmark: Path) -> None:
    assert find_contradictions(read_results(benchmark)) == []


def test_different_support_sets_are_named() -> None:
    rows = [
        job("X", 4, 0, "A", image_auroc=1) | {"support_set_hash": "a" * 64},
        job("X", 4, 0, "B", image_auroc=1) | {"support_set_hash": "b" * 64},
        job("X", 4, 1, "C") | {"support_set_hash": "c" * 64},
    ]
    (found,) = find_contradictions(as_results(*rows, scores={"X": SCORES}))
    assert found.startswith(
        "X, k = 4, seed 0: the models did not learn from the same support set (A aaaaaaaa, B bbbbbbbb)"
    )


def test_scores_that_give_another_auroc_are_named() -> None:
    rows = [job("X", 4, 0, "A", image_auroc=1), job("X", 4, 0, "B", image_auroc=0.9)]
    found = find_contradictions(as_results(*rows, scores={"X": SCORES}))
    assert found == ["X: scores of B k4 seed0 give an AUROC of 1.0000, the table 0.9000."]


def test_missing_scores_are_named() -> None:
    found = find_contradictions(as_results(job("X", 4, 3, "A", image_auroc=1), scores={"X": SCORES}))
    assert found == ["X: scores of A k4 seed3 are missing; curves and comparisons are without it."]
