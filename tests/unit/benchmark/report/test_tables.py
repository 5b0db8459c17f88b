# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Tables: what a cell says."""

import pandas as pd
import pytest

from anomalib_mediclip.benchmark.report.tables import NO_VALUE, Cell, Table, build_costs, build_table, summarise
from anomalib_mediclip.benchmark.results import read_published
from tests.unit.benchmark.small_benchmark import as_results, failure, job, trivial

NOTHING = read_published([])


def seeds(data: str, k_shot: int, model: str, *values: float) -> list[dict]:
    return [job(data, k_shot, seed, model, image_auroc=value) for seed, value in enumerate(values)]


def table_of(*rows: dict, published: pd.DataFrame = NOTHING, metric: str = "image_auroc") -> Table:
    results = as_results(*rows)
    table = build_table(results, summarise(results, metric, published))
    assert table is not None
    return table


def test_a_cell_is_mean_and_sample_deviation_in_percent() -> None:
    table = table_of(*seeds("BUSI", 4, "A", 0.86, 0.87, 0.88), *seeds("BUSI", 16, "A", 0.5))
    (block,) = table.blocks
    assert [(k_shot, cells[0].value) for k_shot, cells, _ in block.rows] == [(4, "87.0 ± 1.0"), (16, "50.0")]


def test_rows_follow_the_configuration_and_k() -> None:
    table = table_of(*seeds("Z", 16, "B", 0.8), *seeds("Z", 4, "A", 0.8), *seeds("C", 4, "B", 0.7))
    assert table.models == ["B", "A"]
    assert [(block.name, [row[0] for row in block.rows]) for block in table.blocks] == [("Z", [4, 16]), ("C", [4])]


def test_best_is_decided_by_what_is_printed() -> None:
    """0.8704 and 0.8696 are both printed as 87.0, so both are bold; the baseline never is."""
    rows = [*seeds("X", 4, "A", 0.8704), *seeds("X", 4, "B", 0.8696), *seeds("X", 4, "C", 0.8694)]
    ((_, cells, baseline),) = table_of(*rows, trivial("X", image_auroc=0.86)).blocks[0].rows
    assert [(cell.value, cell.is_best) for cell in cells] == [("87.0", True), ("87.0", True), ("86.9", False)]
    assert baseline == Cell("86.0")


def test_baseline_that_no_model_beats_is_marked_in_that_row_only() -> None:
    rows = [*seeds("X", 4, "A", 0.7), *seeds("X", 16, "A", 0.8), trivial("X", image_auroc=0.75)]
    table = table_of(*rows)
    assert [row[2] for row in table.blocks[0].rows] == [Cell("75.0", "‡"), Cell("75.0")]
    assert table.has("‡")
    assert not table.has("†")


def test_fewer_seeds_are_never_averaged_silently() -> None:
    rows = [*seeds("X", 4, "A", 0.7, 0.9), failure("X", 4, 2, "A", "boom"), *seeds("X", 4, "B", 0.6, 0.6, 0.6)]
    ((_, (broken, whole), _),) = table_of(*rows).blocks[0].rows
    assert (broken.value, broken.mark, broken.note, broken.is_best) == ("80.0 ± 14.1", "†", "2 of 3 seeds", True)
    assert (whole.mark, whole.note) == ("", "")


def test_failed_everywhere_and_never_run_differ() -> None:
    rows = [failure("X", 4, 0, "A", "boom"), *seeds("X", 4, "B", 0.6), *seeds("X", 16, "B", 0.6)]
    first, second = table_of(*rows).blocks[0].rows
    assert [first[1][0].value, second[1][0].value] == ["failed", NO_VALUE]


def test_a_row_of_failures_is_shown_for_image_auroc_only() -> None:
    pixels = job("Y", 4, 0, "A", image_auroc=0.6, pixel_auroc=0.7)
    rows = [failure("X", 4, 0, "A", "boom"), pixels]
    assert [block.name for block in table_of(*rows).blocks] == ["X", "Y"]
    assert [block.name for block in table_of(*rows, metric="pixel_auroc").blocks] == ["Y"]


def test_table_without_values_is_left_out() -> None:
    results = as_results(*seeds("X", 4, "A", 0.7), trivial("X", image_auroc=0.6, aupro=0.2))
    assert build_table(results, summarise(results, "aupro", NOTHING)) is None


def test_mean_over_data_sets() -> None:
    rows = [
        *seeds("X", 4, "A", 0.7, 0.8), *seeds("X", 4, "B", 0.6), *seeds("X", 16, "A", 0.7), *seeds("X", 16, "B", 0.7),
        trivial("X", image_auroc=0.5),
        *seeds("Y", 4, "A", 0.85), *seeds("Y", 4, "B", 0.9), *seeds("Y", 16, "A", 0.7),
        failure("Y", 16, 0, "B", "boom"), trivial("Y", image_auroc=0.9),
    ]  # fmt: skip
    mean = table_of(*rows).blocks[-1]
    assert mean.name == "mean over data sets"
    ((k_shot, cells, baseline),) = mean.rows  # not for k = 16, where B has no value on Y
    assert k_shot == 4
    assert [(cell.value, cell.is_best) for cell in cells] == [("80.0", True), ("75.0", False)]
    assert baseline == Cell("70.0")


def test_mean_over_fewer_seeds_stays_marked() -> None:
    rows = [*seeds("X", 4, "A", 0.7), *seeds("Y", 4, "A", 0.9), failure("Y", 4, 1, "A", "boom")]
    ((_, (cell,), _),) = table_of(*rows).blocks[-1].rows
    assert (cell.value, cell.mark) == ("80.0", "†")


def test_published_figure_stands_beside_ours() -> None:
    published = pd.DataFrame(
        {
            "data": ["X", "X"],
            "k_shot": [4, 16],
            "model": ["a", "a"],
            "metric": "image_auroc",
            "mean": [75.5, 60],
            "std": 0.4,
        }
    ).astype({"k_shot": "Int64"})
    first, second = table_of(*seeds("X", 4, "A", 0.7), *seeds("X", 8, "A", 0.7), published=published).blocks[0].rows
    assert (first[1][0].published, first[1][0].difference) == ("75.5 ± 0.4", "\N{MINUS SIGN}5.5")
    assert (second[1][0].published, second[1][0].difference) == ("", "")


@pytest.mark.parametrize("column", ["mean", "std", "published_mean"])
def test_summary_is_in_percent(column: str) -> None:
    published = NOTHING.copy()
    published.loc[0] = {"data": "X", "k_shot": 4, "model": "a", "metric": "image_auroc", "mean": 70.0, "std": 1.0}
    results = as_results(*seeds("X", 4, "A", 0.7, 0.8))
    summary = summarise(results, "image_auroc", published)
    assert summary[column].tolist() == {"mean": [75.0], "std": [7.0711], "published_mean": [70.0]}[column]


def test_costs_are_means_over_data_sets_and_seeds() -> None:
    rows = [
        job("X", 4, 0, "B", fit_seconds=1000, peak_memory_mb=1999.6),
        job("Y", 4, 0, "B", fit_seconds=1001, peak_memory_mb=1999.6),
        job("X", 4, 0, "A", fit_seconds=10, trainable_parameters=None) | {"device": "H100"},
        failure("X", 4, 1, "A", "boom"), failure("X", 4, 1, "C", "boom"), trivial("X"),
    ]  # fmt: skip
    costs = build_costs(as_results(*rows)).to_dict("records")
    assert [(row["model"], row["k_shot"], row["training (s)"], row["device"]) for row in costs] == [
        ("B", 4, "1,000.5", "cpu"),
        ("A", 4, "10.0", "H100"),
    ]
    assert [(row["peak memory (MiB)"], row["trained parameters"]) for row in costs] == [
        ("2,000", "409,600"),
        ("1,024", NO_VALUE),
    ]
