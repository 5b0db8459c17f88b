# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The paper's figures as data."""

from pathlib import Path

import pandas as pd
import pytest

from anomalib_mediclip.benchmark.results import read_published

FOLDER = Path(__file__).parents[4] / "docs" / "results"
TABLES = {number: FOLDER / f"paper_table{number}.csv" for number in (1, 2, 3, 4, 5)}
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


@pytest.mark.parametrize(
    ("table", "data", "model", "figure"),
    [
        (3, "CheXpert / BUSI", "MediCLIP", (88.8, 1.0)),
        (3, "BrainMRI / CheXpert", "MediCLIP", (67.7, 0.8)),
        (4, "CheXpert", "handcrafted prompts, no adapter", (42.5, 0.0)),
        (4, "BUSI", "learnable prompts, no adapter", (80.3, 1.4)),
        (5, "VisA / BUSI", "MediCLIP", (74.7, 2.1)),
        (5, "BrainMRI", "GaussIntensityChange & CutPaste", (95.2, 0.4)),
    ],
)
def test_figures_of_the_ablations_as_printed(table: int, data: str, model: str, figure: tuple[float, float]) -> None:
    figures = pd.read_csv(TABLES[table]).set_index(["data", "model"])
    assert tuple(figures.loc[(data, model), ["mean", "std"]]) == figure


def test_the_whole_model_has_the_same_figures_in_all_tables() -> None:
    """The last rows of Tables 4 and 5 and the diagonal of Table 3 are MediCLIP of Table 1 at k = 16."""
    first = pd.read_csv(TABLES[1]).query("k_shot == 16 and model == 'MediCLIP'").set_index("data")["mean"]
    for table, model in ((3, "MediCLIP"), (4, "learnable prompts, adapter"), (5, "all tasks")):
        figures = pd.read_csv(TABLES[table])
        same = figures[(figures["model"] == model) & figures["data"].isin(first.index)].set_index("data")["mean"]
        assert same.sort_index().tolist() == first.sort_index().tolist()


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
    assert sums[3] == {"MediCLIP": 753.5}
    assert [pd.read_csv(TABLES[table])["mean"].sum().round(1) for table in (4, 5)] == [860.5, 1968.5]


def test_all_tables_can_be_read_together() -> None:
    assert len(read_published(list(TABLES.values()))) == 96 + 28 + 9 + 12 + 24
