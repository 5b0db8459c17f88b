# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The comparison in docs/results/lite is what its own raw scores say, and what the README says."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_mediclip.benchmark.configuration import read_configuration
from anomalib_mediclip.benchmark.report import write_report
from anomalib_mediclip.benchmark.results import JobKey, read_results
from tests.conftest import REPOSITORY

LITE = REPOSITORY / "docs" / "results" / "lite"
TABLES = ["table3_lite", "table4_lite", "table5_lite", "full_shot_lite"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(LITE / "results.csv", dtype={"k_shot": "Int64", "seed": "Int64"})


def test_figures_are_scikit_learns_on_the_raw_scores(table: pd.DataFrame) -> None:
    scores = {name: pd.read_csv(LITE / "scores" / f"{name}.csv") for name in table["tested_on"].unique()}
    # models at two k, those that reconstruct at one, seeds, and the trivial baseline
    assert len(table) == 3 * (9 * 2 * 3 + 2 * 3 + 1)
    assert table["error"].isna().all()
    for row in table.itertuples():
        job = row.model if pd.isna(row.seed) else f"{row.model} k{row.k_shot} seed{row.seed}"
        labels, values = scores[row.tested_on]["label"], scores[row.tested_on][job]
        assert row.image_auroc == pytest.approx(roc_auc_score(labels, values), abs=1e-6)
        assert row.image_aupr == pytest.approx(average_precision_score(labels, values), abs=1e-6)


def test_models_learnt_from_the_same_support_sets(table: pd.DataFrame) -> None:
    jobs = table[table["seed"].notna()].groupby(["trained_on", "k_shot", "seed"])["support_set_hash"]
    assert (jobs.nunique() == 1).all()
    assert set(jobs.size()) == {9, 11}


def test_report_is_what_the_results_give(tmp_path: Path) -> None:
    shutil.copytree(LITE, tmp_path / "lite")
    write_report(tmp_path / "lite", pictures=False)
    for name in ("report.md", "significance.csv", "tables/image_auroc.csv"):
        assert (tmp_path / "lite" / name).read_text() == (LITE / name).read_text()


@pytest.mark.parametrize("name", TABLES)
def test_reports_of_the_papers_tables_are_what_their_results_give(name: str, tmp_path: Path) -> None:
    shutil.copytree(LITE.parent / name, tmp_path / name)
    published = read_configuration(REPOSITORY / "configs" / "benchmark" / f"{name}.yaml").published
    write_report(tmp_path / name, published, pictures=False)
    for file in ("report.md", "significance.csv", "tables/image_auroc.csv"):
        assert (tmp_path / name / file).read_text() == (LITE.parent / name / file).read_text()


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_whole_and_their_figures_those_of_the_raw_scores(name: str) -> None:
    configuration = read_configuration(REPOSITORY / "configs" / "benchmark" / f"{name}.yaml")
    results = read_results(LITE.parent / name)
    rows = results.rows[results.rows["seed"].notna()]
    trainings = len(configuration.trained_on) * len(configuration.models) * len(configuration.seeds)
    trainings *= len(configuration.k_shot)
    assert len(rows) == trainings * len(configuration.test_on or [""])
    assert (rows["error"] == "").all()
    for row in rows.itertuples():
        scores = results.scores[row.data]
        assert row.image_auroc == pytest.approx(
            roc_auc_score(scores["label"], scores[JobKey.of_row(row).column]), abs=1e-6
        )


@pytest.mark.parametrize("name", TABLES)
def test_page_of_results_prints_the_means_of_the_papers_tables(name: str) -> None:
    rows = pd.read_csv(LITE.parent / name / "results.csv").dropna(subset="seed")
    groups = rows.groupby(["model", "k_shot", "trained_on", "tested_on"])["image_auroc"]
    assert_printed(groups, groups.ngroups, (LITE.parent / "README.md").read_text())


def test_readme_prints_the_means_of_the_table(table: pd.DataFrame) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    baselines = table[(table["k_shot"] == 16) & table["model"].isin(["PatchCore", "SimpleNet"])]
    assert_printed(baselines.groupby(["tested_on", "model"])["image_auroc"], 6, readme)


def test_page_of_results_prints_every_mean(table: pd.DataFrame) -> None:
    page = (LITE.parent / "README.md").read_text()
    assert_printed(table[table["k_shot"].notna()].groupby(["tested_on", "k_shot", "model"])["image_auroc"], 60, page)


def test_readme_prints_the_means_of_the_ablation() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    ablation = pd.read_csv(LITE.parent / "ablation.csv")
    lite = ablation[(ablation["k_shot"] == 16) & (ablation["model"] == "MediCLIP, EfficientNet-Lite0")]
    shown = lite[lite["row"].isin(["learnt map, maximum (paper)", "joined, top 5 % (lite preset)"])]
    assert_printed(shown.groupby(["data", "row"])["image_auroc"], 6, readme)


def assert_printed(groups: Any, number: int, text: str) -> None:
    assert len(groups) == number
    for mean, deviation in zip(groups.mean(), groups.std(), strict=True):
        assert f"{100 * mean:.1f} ± {100 * deviation:.1f}" in text
