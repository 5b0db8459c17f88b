# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Paired bootstrap."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.benchmark.report.significance import REPLICATES, against_the_best, compare_models
from anomalib_mediclip.benchmark.results import read_results
from tests.unit.benchmark.small_benchmark import ANOMALOUS, NORMAL, as_results, job

LABELS = np.array([0] * NORMAL + [1] * ANOMALOUS)
NOISE = np.random.default_rng(5).normal(size=(4, len(LABELS))).round(1)  # rounded: with ties


def comparison(*seeds_of_models: list[np.ndarray]) -> pd.DataFrame:
    """Compare models called A, B, ..., each with its scores by seed; None where the job failed."""
    names = "ABC"[: len(seeds_of_models)]
    jobs = [
        (model, seed, scores)
        for model, seeds in zip(names, seeds_of_models, strict=True)
        for seed, scores in enumerate(seeds)
        if scores is not None
    ]
    table = pd.DataFrame({"image": "", "label": LABELS} | {f"{m} k4 seed{s}": scores for m, s, scores in jobs})
    rows = [job("X", 4, seed, model, image_auroc=0.5) for model, seed, _ in jobs]
    return compare_models(as_results(*rows, scores={"X": table}))


def test_equal_models_do_not_differ() -> None:
    (row,) = comparison([NOISE[0], NOISE[1]], [NOISE[0], NOISE[1]]).to_dict("records")
    assert (row["difference"], row["low"], row["high"], row["p_value"]) == (0, 0, 0, 1)


def test_order_alone_decides() -> None:
    """Scores of another scale give the same AUROC, exactly."""
    (row,) = comparison([NOISE[0]], [np.exp(NOISE[0]) * 1000]).to_dict("records")
    assert (row["difference"], row["p_value"]) == (0, 1)


def test_clearly_better_model() -> None:
    (row,) = comparison([NOISE[0] + 5 * LABELS], [NOISE[1]]).to_dict("records")
    assert row["difference"] > 30
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["p_value"] == pytest.approx(2 / (REPLICATES + 1))  # the least there is; never 0


def test_difference_is_that_of_the_exact_auroc_over_common_seeds() -> None:
    first, second = [NOISE[0] + LABELS, NOISE[1], NOISE[2]], [NOISE[3], None, NOISE[1] + LABELS]
    (row,) = comparison(first, second).to_dict("records")
    a, b = ([roc_auc_score(LABELS, seeds[index]) for index in (0, 2)] for seeds in (first, second))
    assert row["seeds"] == 2
    assert row["difference"] == pytest.approx(100 * (np.mean(a) - np.mean(b)), abs=1e-9)


def test_the_best_model_is_shown_against_each_of_the_others() -> None:
    scores = {"A": NOISE[0], "B": NOISE[1] + 2 * LABELS, "C": NOISE[2] + LABELS}
    compared = comparison(*([values] for values in scores.values()))
    means = [100 * roc_auc_score(LABELS, values) for values in scores.values()]
    summary = pd.DataFrame({"data": "X", "k_shot": 4, "model": list(scores), "mean": means})
    shown = against_the_best(compared, summary).to_dict("records")
    assert [(row["model_a"], row["model_b"]) for row in shown] == [("B", "A"), ("B", "C")]
    turned, kept = shown
    original = compared.set_index(["model_a", "model_b"])
    assert turned["difference"] == -original.loc[("A", "B"), "difference"] == pytest.approx(means[1] - means[0])
    assert (turned["low"], turned["high"]) == (-original.loc[("A", "B"), "high"], -original.loc[("A", "B"), "low"])
    assert kept["low"] == original.loc[("B", "C"), "low"]


def test_swapping_the_models_flips_the_sign() -> None:
    a, b = [NOISE[0] + LABELS], [NOISE[1]]
    (row,), (swapped,) = comparison(a, b).to_dict("records"), comparison(b, a).to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((-swapped["high"], -swapped["low"]))
    assert (row["difference"], row["p_value"]) == (-swapped["difference"], swapped["p_value"])


@pytest.mark.slow
def test_interval_is_that_of_a_plain_bootstrap() -> None:
    """The bounds agree with redrawing images one replicate at a time, up to the noise of two sets of draws."""
    a, b = NOISE[0] + LABELS, NOISE[1] + 0.5 * LABELS
    (row,) = comparison([a], [b]).to_dict("records")
    generator = np.random.default_rng(11)
    classes = np.flatnonzero(LABELS == 0), np.flatnonzero(LABELS == 1)
    differences = []
    for _ in range(REPLICATES):
        drawn = np.concatenate([generator.choice(images, len(images)) for images in classes])
        differences.append(100 * (roc_auc_score(LABELS[drawn], a[drawn]) - roc_auc_score(LABELS[drawn], b[drawn])))
    assert (row["low"], row["high"]) == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=2)


def test_same_scores_same_figures() -> None:
    arguments = [NOISE[0]], [NOISE[1]], [NOISE[2]]
    pd.testing.assert_frame_equal(comparison(*arguments), comparison(*arguments))
    assert comparison(*arguments)[["model_a", "model_b"]].to_numpy().tolist() == [["A", "B"], ["A", "C"], ["B", "C"]]


def test_models_without_a_common_seed_are_left_out() -> None:
    assert comparison([NOISE[0], None], [None, NOISE[1]]).empty


def test_scores_agree_with_the_table_of_results(benchmark) -> None:
    results = read_results(benchmark)
    comparisons = compare_models(results)
    assert len(comparisons) == 4  # 2 data sets x 2 k; the third model has failed everywhere
    assert not comparisons.isna().any(axis=None)
    means = results.rows.groupby(["data", "k_shot", "model"])["image_auroc"].mean()
    row = comparisons.iloc[0]
    expected = means["BUSI", 4, "MediCLIP"] - means["BUSI", 4, "SimpleNet"]
    assert row["difference"] == pytest.approx(100 * expected, abs=1e-9)


@pytest.mark.parametrize("scores", NOISE)
def test_auroc_is_that_of_scikit_learn(scores: np.ndarray) -> None:
    (row,) = comparison([scores], [LABELS.astype(float)]).to_dict("records")
    assert row["difference"] == pytest.approx(100 * (roc_auc_score(LABELS, scores) - 1), abs=1e-10)
