# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Matrices of data sets trained on x data sets tested on, as the paper's Table 3."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from anomalib_mediclip.benchmark.report.tables import NO_VALUE, Cell, layout_cell
from anomalib_mediclip.benchmark.results import JobKey, Results


@dataclass(frozen=True)
class Matrix:
    """Image-AUROC of one model and size of the support set, wherever it was trained and tested.

    Attributes:
        model (str): Model.
        k_shot (int): Size of the support set.
        tested_on (list[str]): Columns.
        rows (list[tuple[str, list[Cell], str]]): Data set trained on, a cell for every column, and the mean of the row.
    """

    model: str
    k_shot: int
    tested_on: list[str]
    rows: list[tuple[str, list[Cell], str]]


def build_matrices(results: Results, summary: pd.DataFrame) -> list[Matrix]:
    """Lay out the matrices.

    Args:
        results (Results): Results of the benchmark.
        summary (pd.DataFrame): Summary of Image-AUROC, from :func:`~.tables.summarise`.

    Returns:
        list[Matrix]: One for every model and size of the support set; none where every model was tested on the data set
        that it was trained on.
    """
    if not results.has_transfer:
        return []
    found: dict[Any, Any] = {(row["model"], row["k_shot"], row["data"]): row for _, row in summary.iterrows()}
    trained = results.rows[results.rows["seed"].notna()]
    tested_on = list(dict.fromkeys(trained["tested_on"]))
    matrices = []
    for (model, k_shot), of_model in trained.groupby(["model", "k_shot"], sort=False):
        rows = []
        for trained_on in dict.fromkeys(of_model["trained_on"]):
            tasks = [JobKey(name, str(model), None, None, trained_on).task for name in tested_on]
            known = [found.get((model, k_shot, task)) for task in tasks]
            cells = [Cell(NO_VALUE) if row is None else layout_cell(row) for row in known]
            rows.append((trained_on, cells, _mean(known)))
        matrices.append(Matrix(str(model), int(str(k_shot)), tested_on, rows))
    return matrices


def _mean(rows: list[Any]) -> str:
    """Format the mean over test sets; none where a value is missing."""
    means = [float("nan") if row is None else row["mean"] for row in rows]
    return NO_VALUE if any(pd.isna(mean) for mean in means) else f"{sum(means) / len(means):.1f}"
