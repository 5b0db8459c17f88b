# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading: what is refused, and with which words."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from anomalib_mediclip.benchmark.results import COLUMNS, TRIVIAL, JobKey, read_published, read_results


def test_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results\.csv does not exist.*run the benchmark"):
        read_results(tmp_path)


@pytest.mark.parametrize("text", ["", ",".join(COLUMNS) + "\n"])
def test_empty_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(ValueError, match=r"results\.csv has no rows"):
        read_results(tmp_path)


def test_missing_columns_are_named(tmp_path: Path, benchmark: Path) -> None:
    table = pd.read_csv(benchmark / "results.csv").drop(columns=["seed", "error"])
    table.to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(ValueError, match=r"results\.csv lacks the columns seed, error; expected data,"):
        read_results(tmp_path)


def test_missing_columns_of_published_figures_are_named(tmp_path: Path) -> None:
    (tmp_path / "paper.csv").write_text("data,model,metric,mean\nBUSI,A,image_auroc,90\n")
    with pytest.raises(ValueError, match=r"paper\.csv lacks the columns k_shot, std"):
        read_published([tmp_path / "paper.csv"])


def test_sizes_that_pandas_wrote_with_a_decimal_point(tmp_path: Path, benchmark: Path) -> None:
    """A tool that knows no missing integers turns 16 into 16.0; columns of scores must be found all the same."""
    shutil.copytree(benchmark, tmp_path / "copy")
    table = pd.read_csv(tmp_path / "copy" / "results.csv")
    assert table["k_shot"].dtype == float
    table.to_csv(tmp_path / "copy" / "results.csv", index=False)
    results = read_results(tmp_path / "copy")
    assert results.k_shots == [4, 16]
    assert results.columns("BrainMRI", "SimpleNet", 16) == {0: "SimpleNet k16 seed0", 2: "SimpleNet k16 seed2"}


def test_data_set_with_one_class_has_no_curves(tmp_path: Path, benchmark: Path) -> None:
    shutil.copytree(benchmark, tmp_path / "copy")
    scores = tmp_path / "copy" / "scores" / "BUSI.csv"
    pd.read_csv(scores).query("label == 1").to_csv(scores, index=False)
    assert list(read_results(tmp_path / "copy").scores) == ["BrainMRI"]


def test_a_job_key_owns_the_name_of_the_column() -> None:
    assert JobKey("BUSI", "A", 4, 1).column == "A k4 seed1"
    assert JobKey("BUSI", "A", 4, 1, tested_on="CheXpert").column == "A k4 seed1 on CheXpert"
    assert JobKey("BUSI", TRIVIAL, None, None).column == TRIVIAL


def test_job_keys_of_a_table_name_its_columns(benchmark) -> None:
    results = read_results(benchmark)
    finished = results.rows[results.rows["error"] == ""]
    for row in finished.itertuples():
        if row.data in results.scores:
            assert JobKey.of_row(row).column in results.scores[row.data]
