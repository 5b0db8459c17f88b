# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Tables in the layout of the paper's Table 1: data sets x sizes of the support set down, models across."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from anomalib_mediclip.benchmark.results import METRICS, TRIVIAL, Results

MINUS = "\N{MINUS SIGN}"
PARTLY_FAILED = "†"
PARTLY_TESTED = "§"
NO_BETTER_THAN_TRIVIAL = "‡"
NO_VALUE = "\N{EN DASH}"
MEAN = "mean over data sets"
COSTS = {
    "steps": ("steps", "{:,.0f}"),
    "fit_seconds": ("training (s)", "{:,.1f}"),
    "images_per_second": ("images/s", "{:,.1f}"),
    "latency_ms": ("latency (ms)", "{:,.1f}"),
    "peak_memory_mb": ("peak memory (MiB)", "{:,.0f}"),
    "trainable_parameters": ("trained parameters", "{:,.0f}"),
}


@dataclass(frozen=True)
class Cell:
    """A figure as it is printed.

    Attributes:
        value (str): Mean and standard deviation in percent, ``failed``, or a dash.
        mark (str): Marks of footnotes, or nothing.
        note (str): What the marks stand for in this cell, or nothing.
        published (str): Published figure for the same thing, or nothing.
        difference (str): Ours minus the published mean, in points, or nothing.
        is_best (bool): Whether no model has more in this row.
    """

    value: str
    mark: str = ""
    note: str = ""
    published: str = ""
    difference: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Block:
    """Rows of one data set.

    Attributes:
        name (str): Data set.
        rows (list[tuple[int, list[Cell], Cell]]): For every size of the support set: size, a cell for every model, and
            the cell of the trivial baseline.
    """

    name: str
    rows: list[tuple[int, list[Cell], Cell]]


@dataclass(frozen=True)
class Table:
    """Table of one metric.

    Attributes:
        metric (str): Name of the column in ``results.csv``.
        title (str): Name of the metric.
        models (list[str]): Columns.
        blocks (list[Block]): Rows.
    """

    metric: str
    title: str
    models: list[str]
    blocks: list[Block]

    def has(self, mark: str) -> bool:
        """Return whether a cell bears the mark.

        Args:
            mark (str): Mark.
        """
        return any(
            mark in cell.mark for block in self.blocks for _, cells, trivial in block.rows for cell in (*cells, trivial)
        )


def summarise(results: Results, metric: str, published: pd.DataFrame) -> pd.DataFrame:
    """Compute mean and standard deviation over seeds.

    Args:
        results (Results): Results of the benchmark.
        metric (str): Column of ``results.csv``.
        published (pd.DataFrame): Published figures, from :func:`~.results.read_published`.

    Returns:
        pd.DataFrame: A row for every data set, size of the support set and model: ``data``, ``k_shot`` (none for the
        trivial baseline), ``model``, ``metric``; ``mean`` and ``std`` (ddof 1) in percent; ``seeds`` and ``failed``,
        the numbers of jobs with a value and without success; ``published_mean`` and ``published_std`` in percent.
    """
    rows = results.rows.assign(percent=100 * results.rows[metric], failed=results.rows["error"] != "")
    groups = rows.groupby(["data", "k_shot", "model"], sort=False, dropna=False)
    table = groups.agg(
        mean=("percent", "mean"), std=("percent", "std"), seeds=("percent", "count"), failed=("failed", "sum")
    ).reset_index()
    table.insert(3, "metric", metric)
    theirs = published.set_index(["data", "k_shot", "model", "metric"])[["mean", "std"]].add_prefix("published_")
    theirs = theirs[~theirs.index.duplicated(keep="last")]
    keys = pd.MultiIndex.from_arrays([table["data"], table["k_shot"], table["model"].str.lower(), table["metric"]])
    found = theirs.reindex(keys).reset_index(drop=True)
    return pd.concat([table, found], axis="columns").round(4)


def build_table(results: Results, summary: pd.DataFrame) -> Table | None:
    """Lay out a summary.

    Args:
        results (Results): Results of the benchmark.
        summary (pd.DataFrame): From :func:`summarise`.

    Returns:
        Table | None: Table without the rows in which no model has a value, but for Image-AUROC, where a row of failures
        is shown as such; None where no model has any value.
    """
    metric = summary["metric"].iloc[0]
    if summary.loc[summary["model"] != TRIVIAL, "mean"].isna().all():
        return None
    both = pd.concat([summary, _mean_over_data(summary, results)])
    rows = []
    for data in both["data"].unique():
        of_data = both[both["data"] == data]
        for k_shot in results.k_shots:
            cells = of_data[(of_data["k_shot"] == k_shot).fillna(False)].set_index("model").reindex(results.models)
            cells["tested"] = [_tested(results, str(data), model, k_shot) for model in results.models]
            if cells["mean"].notna().any() or (metric == "image_auroc" and cells["failed"].sum() > 0):
                trivial = of_data[(of_data["model"] == TRIVIAL) & (of_data["k_shot"].isna() | (data == MEAN))]
                rows.append((data, _lay_out(k_shot, cells, trivial)))
    blocks = [Block(data, [row for _, row in group]) for data, group in groupby(rows, key=lambda row: row[0])]
    return Table(metric, METRICS[metric], results.models, blocks)


def build_costs(results: Results) -> pd.DataFrame:
    """Compute the costs of each model, as means over data sets and seeds.

    Args:
        results (Results): Results of the benchmark.

    Returns:
        pd.DataFrame: A row of text for every model and size of the support set: ``model``, ``k_shot``, the costs under
        the titles of ``COSTS``, ``device``; models without a finished job are left out.
    """
    finished = results.rows[(results.rows["error"] == "") & (results.rows["model"] != TRIVIAL)]
    groups = finished.groupby(["model", "k_shot"])
    means = groups[list(COSTS)].mean()
    costs = pd.DataFrame(
        {
            title: [NO_VALUE if pd.isna(v) else text.format(v) for v in means[key]]
            for key, (title, text) in COSTS.items()
        },
        index=means.index,
    )
    costs["device"] = groups["device"].agg(lambda names: ", ".join(names.unique()))
    order = pd.MultiIndex.from_product([results.models, results.k_shots], names=["model", "k_shot"])
    return costs.loc[[key for key in order if key in costs.index]].reset_index()


def format_figure(mean: float, std: float) -> str:
    """Format a mean and its standard deviation.

    Args:
        mean (float): Mean.
        std (float): Standard deviation; NaN where there is only one value.

    Returns:
        str: Text with one decimal.

    Example:
        >>> format_figure(87.04, 0.55), format_figure(87.0, float("nan"))
        ('87.0 ± 0.6', '87.0')
    """
    return f"{mean:.1f}" if pd.isna(std) else f"{mean:.1f} ± {std:.1f}"


def _mean_over_data(summary: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Return rows of the mean over data sets, for every k at which all models have a value on all data sets.

    There are none where models were tested on other data sets than they were trained on: the matrices have these means.
    """
    if results.has_transfer:
        return summary.iloc[:0]
    models = results.models
    with_values = summary[summary["mean"].notna()]
    data_sets = with_values.loc[with_values["model"].isin(models), "data"].unique()
    if len(data_sets) < 2:
        return summary.iloc[:0]
    with_values = with_values[with_values["data"].isin(data_sets)]
    trivial = with_values[with_values["model"] == TRIVIAL]
    rows = []
    for k_shot, of_models in with_values.groupby("k_shot"):
        if len(of_models) == len(models) * len(data_sets):
            complete = [of_models] if len(trivial) < len(data_sets) else [of_models, trivial]
            means = pd.concat(complete).groupby("model")[["mean", "seeds", "failed"]]
            rows.append(
                means.agg({"mean": "mean", "seeds": "sum", "failed": "sum"}).reset_index().assign(k_shot=k_shot)
            )
    if not rows:
        return summary.iloc[:0]
    return pd.concat(rows).reindex(columns=summary.columns).assign(data=MEAN, metric=summary["metric"].iloc[0])


def _lay_out(k_shot: int, of_models: pd.DataFrame, of_trivial: pd.DataFrame) -> tuple[int, list[Cell], Cell]:
    """Return a row; printed figures decide which is best, so that equal ones are treated alike."""
    best = of_models["mean"].round(1).max()
    cells = [
        layout_cell(row, is_best=round(row["mean"], 1) == best, tested=row["tested"]) for _, row in of_models.iterrows()
    ]
    trivial = of_trivial["mean"].max()
    if pd.isna(trivial):
        return k_shot, cells, Cell(NO_VALUE)
    return k_shot, cells, Cell(f"{trivial:.1f}", NO_BETTER_THAN_TRIVIAL if round(trivial, 1) >= best else "")


def layout_cell(row: pd.Series, *, is_best: bool = False, tested: str = "") -> Cell:
    """Lay out the figure of a model.

    Args:
        row (pd.Series): Row of :func:`summarise`.
        is_best (bool, optional): Whether no model has more in this row. Defaults to ``False``.
        tested (str, optional): On how many images the model was tested, if others were tested on more. Defaults to
            ``""``.

    Returns:
        Cell: Cell.
    """
    if pd.isna(row["mean"]):
        return Cell("failed" if row["failed"] > 0 else NO_VALUE, **_published(row))
    seeds = f"{row['seeds']:.0f} of {row['seeds'] + row['failed']:.0f} seeds" if row["failed"] > 0 else ""
    return Cell(
        value=format_figure(row["mean"], row["std"]),
        mark=(PARTLY_FAILED if seeds else "") + (PARTLY_TESTED if tested else ""),
        note=", ".join(part for part in (seeds, tested) if part),
        is_best=is_best,
        **_published(row),
    )


def _tested(results: Results, data: str, model: str, k_shot: int) -> str:
    """Say on how many images a model was tested, if others were tested on more."""
    tested, images = results.tested_images(data, model, k_shot)
    return f"{tested} of {images} images" if tested < images else ""


def _published(row: pd.Series) -> dict[str, Any]:
    """Return the published figure and our difference from it."""
    if pd.isna(row["published_mean"]):
        return {}
    difference = f"{round(row['mean'], 1) - row['published_mean']:+.1f}".replace("-", MINUS)
    return {
        "published": format_figure(row["published_mean"], row["published_std"]),
        "difference": "" if pd.isna(row["mean"]) else difference,
    }
