# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Paired bootstrap over test images, which shows whether two models differ by more than the choice of images explains.

The AUROC is the share of pairs of an anomalous and a normal image in the right order, a tie counting one half. In a
replicate, normal and anomalous images are drawn with replacement within their class, and a pair counts as often as both
of its images were drawn (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). All models and seeds see the
same draws, which ``scipy.stats.bootstrap`` cannot give: it draws anew for every comparison.
"""

from itertools import chain, combinations
from typing import Any

import numpy as np
import pandas as pd

from anomalib_mediclip.benchmark.results import Results

REPLICATES = 2000
CONFIDENCE = 95  # percent
COLUMNS = ("data", "k_shot", "model_a", "model_b", "seeds", "difference", "low", "high", "p_value")


def compare_models(results: Results) -> pd.DataFrame:
    """Compare every pair of models on every data set and size of the support set.

    The difference is that of the mean Image-AUROC over the seeds that both models finished. A pair without a common
    seed is left out.

    Args:
        results (Results): Results of the benchmark.

    Returns:
        pd.DataFrame: Columns ``data,k_shot,model_a,model_b,seeds,difference,low,high,p_value``; difference (A minus B)
        and the bounds of its 95 % percentile interval in points, that is hundredths of AUROC.
    """
    rows = []
    for data, table in results.scores.items():
        sums = _resample(table[[name for name in table if table[name].notna().all()]])
        for k_shot in results.k_shots:
            columns = {model: results.columns(data, model, k_shot) for model in results.models}
            for model_a, model_b in combinations(results.models, 2):
                seeds = sorted(columns[model_a].keys() & columns[model_b].keys())
                pairs = [(columns[model_a][seed], columns[model_b][seed]) for seed in seeds]
                of_pair = sums if set(chain(*pairs)) <= set(sums) else _resample_common(table, list(chain(*pairs)))
                if pairs and of_pair is not None:
                    rows.append((data, k_shot, model_a, model_b, len(seeds), *_compare(of_pair, pairs)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def against_the_best(comparisons: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Choose the comparisons of the best model of each data set and k with the other models.

    Args:
        comparisons (pd.DataFrame): From :func:`compare_models`.
        summary (pd.DataFrame): Summary of Image-AUROC, from :func:`~.tables.summarise`.

    Returns:
        pd.DataFrame: The same columns, the best model as A; of equal models the first one is the best.
    """
    means = summary[summary["k_shot"].notna()].set_index(["data", "k_shot", "model"])["mean"].dropna()
    rows = []
    for row in comparisons.to_dict("records"):
        kept: dict[Any, Any] = row
        best = means[row["data"], row["k_shot"]].idxmax()
        if row["model_a"] == best:
            rows.append(kept)
        elif row["model_b"] == best:
            turned = {"model_a": best, "model_b": row["model_a"], "difference": -row["difference"]}
            rows.append({**kept, **turned, "low": -row["high"], "high": -row["low"]})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _compare(sums: pd.DataFrame, pairs: list[tuple[str, str]]) -> tuple[float, float, float, float]:
    """Compare columns of two models, seed by seed."""
    # sums of whole numbers, so that equal models differ by exactly 0
    differences: Any = sum(sums[first] - sums[second] for first, second in pairs)
    return _summarise(differences.to_numpy(), 100 / (sums.attrs["pairs"] * len(pairs)))


def _resample_common(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame | None:
    """Count half wins on the images that all of these columns have; None if they are of one class."""
    common = table.loc[table[columns].notna().all(axis="columns"), ["image", "label", *columns]]
    return _resample(common) if common["label"].nunique() == 2 else None


def _half_wins(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return 2 where the anomalous image scores higher, 1 at a tie, else 0; float64, ``(anomalous, normal)``."""
    anomalous, normal = scores[labels == 1][:, None], scores[labels == 0][None]
    half_wins: np.ndarray = (anomalous > normal).astype(np.float64) + (anomalous >= normal)
    return half_wins


def _resample(table: pd.DataFrame) -> pd.DataFrame:
    """Count half wins for every column of scores: in the first row of all images once, below in the replicates."""
    labels = table["label"].to_numpy()
    generator = np.random.default_rng(0)
    anomalous, normal = _draw(generator, int((labels == 1).sum())), _draw(generator, int((labels == 0).sum()))
    sums = {
        column: ((anomalous @ _half_wins(table[column].to_numpy(), labels)) * normal).sum(axis=1)
        for column in table.columns.drop(["image", "label"])
    }
    resampled = pd.DataFrame(sums)
    resampled.attrs["pairs"] = 2 * anomalous.shape[1] * normal.shape[1]
    return resampled


def _draw(generator: np.random.Generator, number: int) -> np.ndarray:
    """Return how often each image was drawn: once each, then in the replicates; shape ``(1 + REPLICATES, number)``."""
    drawn = generator.multinomial(number, np.full(number, 1 / number), size=REPLICATES)
    return np.vstack([np.ones(number), drawn])


def _summarise(differences: np.ndarray, scale: float) -> tuple[float, float, float, float]:
    """Return difference, bounds of the interval and two-sided p-value of the first value against its replicates."""
    replicates = differences[1:]
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(replicates, [tail, 100 - tail])
    # one added to both counts: a bootstrap of finite size cannot show a probability of 0
    share = (1 + min((replicates <= 0).sum(), (replicates >= 0).sum())) / (1 + len(replicates))
    return float(scale * differences[0]), float(scale * low), float(scale * high), float(min(1, 2 * share))
