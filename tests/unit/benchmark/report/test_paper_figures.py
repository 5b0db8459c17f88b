# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The paper's figures as data."""

from pathlib import Path

import pandas as pd
import pytest

from anomalib_mediclip.benchmark.results import read_published

FOLDER = Path(__file__).parents[4] / "docs" / "results"
TABLES = {1: FOLDER / "paper_table1.csv", 2: FOLDER / "paper_table2.csv"}
MODELS = ["PatchCore", "SimpleNet", "SQUID", "AnoDDPM", "CutPaste", "PatchSVDD", "RegAD", "MediCLIP"]


@pytest.mark.parametrize(
    ("table", "data_sets", "models", "metric"),
    [
        (1, ["CheXpert", "BrainMRI", "BUSI"], MODELS, "image_auroc"),
        (2, ["BUSI"], [model for model in MODELS if model != "CutPaste"], "pixel_auroc"),
    ],
)
def test_every_cell_is_there_once(table: int, data_sets: list[str], models: list[str], metric: str) -> None:
    figures = pd.read_csv(TABLES[table])
    expected = [(data, k_shot, model, metric) for data in data_sets for k_shot in (4, 8, 16, 32) for model in models]
    assert list(figures[["data", "k_shot", "model", "metric"]].itertuples(index=False, name=None)) == expected


@pytest.mark.parametrize(
    ("table", "data", "k_shot", "model", "figure"),
    [
        (1, "CheXpert", 4, "PatchCore", (60.0, 1.8)),
        (1, "CheXpert", 16, "MediCLIP", (72.5, 1.7)),
        (1, "CheXpert", 32, "CutPaste", (71.4, 2.0)),
        (1, "BrainMRI", 8, "AnoDDPM", (73.0, 3.6)),
        (1, "BrainMRI", 32, "PatchCore", (81.7, 0.2)),
        (1, "BUSI", 4, "PatchCore", (81.7, 1.3)),
        (1, "BUSI", 16, "PatchSVDD", (73.7, 6.0)),
        (1, "BUSI", 32, "MediCLIP", (91.0, 0.3)),
        (2, "BUSI", 4, "SQUID", (56.8, 5.1)),
        (2, "BUSI", 16, "SimpleNet", (78.2, 1.5)),
        (2, "BUSI", 32, "MediCLIP", (90.1, 1.0)),
    ],
)
def test_figures_as_printed(table: int, data: str, k_shot: int, model: str, figure: tuple[float, float]) -> None:
    figures = pd.read_csv(TABLES[table]).set_index(["data", "k_shot", "model"])
    assert tuple(figures.loc[(data, k_shot, model), ["mean", "std"]]) == figure


def test_sums_of_the_printed_columns() -> None:
    """Sums over the rows of the printed tables, to find a slip of the pen."""
    sums = {
        table: pd.read_csv(path).groupby("model")["mean"].sum().round(1).to_dict() for table, path in TABLES.items()
    }
    assert sums[1] == {
        "PatchCore": 897.5, "SimpleNet": 909.7, "SQUID": 818.1, "AnoDDPM": 829.6, "CutPaste": 887.8, "PatchSVDD": 849.6,
        "RegAD": 861.2, "MediCLIP": 1025.2,
    }  # fmt: skip
    assert sums[2]["MediCLIP"] == 356.6


def test_both_tables_can_be_read_together() -> None:
    assert len(read_published(list(TABLES.values()))) == 96 + 28
