# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading: what is refused, and with which words."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.benchmark.report import write_report
from anomalib_mediclip.benchmark.results import COLUMNS, TRIVIAL, JobKey, read_published, read_results, write_results


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
    with pytest.raises(ValueError, match=r"results\.csv lacks the columns seed, error; expected trained_on,"):
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
    assert JobKey("BUSI", "A", 4, 1, trained_on="BUSI").column == "A k4 seed1"
    transfer = JobKey("CheXpert", "A", 4, 1, trained_on="BUSI")
    assert transfer.column == "A k4 seed1 trained on BUSI"
    assert transfer.task == "BUSI / CheXpert"
    assert JobKey("BUSI", TRIVIAL, None, None).column == TRIVIAL


def test_job_keys_of_a_table_name_its_columns(benchmark) -> None:
    results = read_results(benchmark)
    finished = results.rows[results.rows["error"] == ""]
    for row in finished.itertuples():
        if row.data in results.scores:
            assert JobKey.of_row(row).column in results.scores[row.data]


def write_jobs(folder: Path, tested: dict[str, list[int]]) -> list[Path]:
    """Write the records of jobs that were tested on some of 20 images each."""
    (folder / "jobs").mkdir(parents=True)
    generator = np.random.default_rng(0)
    records = []
    for model, images in tested.items():
        labels = np.array([image % 2 for image in images])
        scores = generator.normal(size=len(images)).astype(np.float32) + labels
        row = {
            "trained_on": "mine",
            "tested_on": "mine",
            "k_shot": 4,
            "seed": 0,
            "model": model,
            "error": None,
            "title": f"{model} k4 seed0",
        }
        row |= {"image_auroc": roc_auc_score(labels, scores), "device": "cpu", "versions": "", "steps": 1}
        record = folder / "jobs" / f"{model}.json"
        record.write_text(json.dumps(row))
        names = np.array([f"{image}.png" for image in images])
        np.savez(record.with_suffix(".npz"), names=names, labels=labels, scores=scores)
        records.append(record)
    return records


def test_jobs_that_were_tested_on_other_images_are_reported_and_marked(tmp_path: Path) -> None:
    tested = {"A": [*range(20)], "B": [*range(20)], "C": [*range(1, 16)]}
    write_results(write_jobs(tmp_path, tested), tmp_path)
    table = pd.read_csv(tmp_path / "scores" / "mine.csv")
    assert table["image"].tolist() == [f"{image}.png" for image in range(20)]
    assert table["C k4 seed0"].notna().sum() == 15
    write_report(tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "§ 15 of 20 images" in page
    assert "C k4 seed0 was tested on 15 of 20 images" in page
    compared = pd.read_csv(tmp_path / "significance.csv").set_index(["model_a", "model_b"])["difference"]
    common = table[table["C k4 seed0"].notna()]
    aurocs = {name: 100 * roc_auc_score(common["label"], common[f"{name} k4 seed0"]) for name in "ABC"}
    assert compared["A", "C"] == pytest.approx(aurocs["A"] - aurocs["C"], abs=1e-4)
    whole = {name: 100 * roc_auc_score(table["label"], table[f"{name} k4 seed0"]) for name in "AB"}
    assert compared["A", "B"] == pytest.approx(whole["A"] - whole["B"], abs=1e-4)


FEW_FILES = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from anomalib_mediclip.benchmark.results import read_results, write_results
folder = Path(sys.argv[1])
write_results(sorted((folder / "jobs").glob("*.json")), folder)
print(len(read_results(folder).rows))
"""


@pytest.mark.slow
def test_four_hundred_jobs_under_a_limit_of_256_open_files(tmp_path: Path) -> None:
    write_jobs(tmp_path, {f"model{number:03}": [*range(20)] for number in range(400)})
    command = [sys.executable, "-c", FEW_FILES, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "400", result.stderr[-2000:]
