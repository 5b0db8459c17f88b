# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The paper's Tables 3 to 5 through ``anomalib few_shot_benchmark``: the shipped files, with tiny models."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from anomalib_mediclip.benchmark.configuration import read_configuration
from tests.conftest import REPOSITORY
from tests.helpers.official import IMAGE_SIZE, LAYERS, OfficialRun

CONFIGS = REPOSITORY / "configs" / "benchmark"
TIMES = ["fit_seconds", "test_seconds", "images_per_second", "latency_ms", "peak_memory_mb"]
SMALL = {"image_size": [64, 64], "views": 1}
RANDOM = {"encoder": "timm/resnet18", "weights": None, "layers": [3, 4]}


def shrunk(name: str, sample_data: Path, tiny: dict[str, Any]) -> dict[str, Any]:
    """A shipped benchmark with its models made tiny, and the sample in the place of each of its data sets."""
    configuration = read_configuration(CONFIGS / f"{name}.yaml")
    models = {
        model: {
            "class_path": content["class_path"],
            "init_args": {**content["init_args"], **SMALL, **tiny},
            "trainer": {"max_epochs": 2},
        }
        for model, content in configuration.models.items()
    }
    sample = {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data)}}
    data = {
        data: {**sample, "init_args": {**sample["init_args"], "name": data}}
        if "parts" not in content["init_args"]
        else {"class_path": "UnifiedData", "init_args": {"parts": unified_parts(sample_data)}}
        for data, content in configuration.data.items()
    }
    section = {"models": models, "data": data, "k_shot": [4], "seeds": [0], "test_on": configuration.test_on}
    published = [str(path) for path in configuration.published]
    return {"accelerator": "cpu", "few_shot_benchmark": {**section, "published": published, "output": "out"}}


def unified_parts(sample_data: Path) -> dict[str, Any]:
    """Two halves of the sample's training images, each with the whole test set."""
    return {
        half: {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data.parent / half), "name": half}}
        for half in ("first", "second")
    }


@pytest.fixture
def halves(sample_data: Path, tmp_path: Path) -> Path:
    """A copy of the sample, and two data sets with one half of its training images each."""
    root = tmp_path / "data" / "sample"
    shutil.copytree(sample_data, root)
    images = sorted((root / "train" / "normal").glob("*.png"))
    for half, chosen in (("first", images[:8]), ("second", images[8:])):
        shutil.copytree(root, root.parent / half)
        for image in images:
            if image not in chosen:
                (root.parent / half / "train" / "normal" / image.name).unlink()
    return root


def run(folder: Path, content: dict[str, Any], *options: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    command = [str(Path(sys.executable).with_name("anomalib")), "few_shot_benchmark", "--config", "benchmark.yaml"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, cwd=folder, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return folder / "out"


@pytest.mark.slow
def test_table_3_trains_once_for_each_row_and_is_the_same_again(halves: Path, tmp_path: Path) -> None:
    content = shrunk("table3_lite", halves, RANDOM)
    del content["few_shot_benchmark"]["data"]["chest_nih"]
    content["few_shot_benchmark"]["test_on"] = ["BUSI", "BrainMRI"]
    first, again = run(tmp_path / "one", content), run(tmp_path / "two", content)
    tables = [pd.read_csv(out / "results.csv").drop(columns=TIMES) for out in (first, again)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    trained = tables[0][tables[0]["seed"].notna()]
    assert sorted(zip(trained["trained_on"], trained["tested_on"], strict=True)) == [
        (data, tested) for data in ("BUSI", "BrainMRI", "all three") for tested in ("BUSI", "BrainMRI")
    ]
    assert trained.groupby("trained_on")["support_set_hash"].nunique().eq(1).all()
    records = [json.loads(path.read_text()) for path in (first / "jobs").glob("*.json")]
    trainings = {(row["trained_on"], row["fit_seconds"]) for row in records if row["seed"] is not None}
    assert len(trainings) == 3  # each is used for both of its tests
    reports = [(out / "report.md").read_text().split("## Cost")[0] for out in (first, again)]
    assert reports[0] == reports[1]
    assert r"trained on \\ tested on" in reports[0]  # Markdown shows one
    assert "(paper 84.8 ± 1.1)" not in reports[0]  # of k = 16; here it is 4
    for name in ("scores/BUSI.csv", "significance.csv", "tables/image_auroc.csv"):
        assert (first / name).read_text() == (again / name).read_text()


@pytest.mark.slow
def test_table_4_trains_what_there_is_to_train(sample_data: Path, official: OfficialRun, tmp_path: Path) -> None:
    tiny = {"encoder": official.encoder, "weights": None, "layers": LAYERS, "image_size": list(IMAGE_SIZE)}
    content = shrunk("table4", sample_data, tiny)
    for data in ("CheXpert", "BUSI"):
        del content["few_shot_benchmark"]["data"][data]
    table = pd.read_csv(run(tmp_path, content) / "results.csv")
    rows = table[table["seed"].notna()]
    assert rows["error"].isna().all()
    assert rows["steps"].tolist() == [0, 2, 2, 2]  # handcrafted prompts without an adapter have nothing to learn
    assert rows["trainable_parameters"].iloc[0] == 0
    assert rows["image_auroc"].between(0, 1).all()


@pytest.mark.slow
def test_table_5_and_options_of_the_command(sample_data: Path, tmp_path: Path) -> None:
    content = shrunk("table5_lite", sample_data, RANDOM)
    data = content["few_shot_benchmark"]["data"]
    content["few_shot_benchmark"]["data"] = {"BUSI": data["BUSI"]}
    out = run(tmp_path, content, "--few_shot_benchmark.k_shot", "[all]", "--few_shot_benchmark.note", "tiny")
    rows = pd.read_csv(out / "results.csv").dropna(subset="seed")
    assert rows["model"].tolist() == [
        "CutPaste", "GaussIntensityChange", "Source", "GaussIntensityChange & CutPaste",
        "GaussIntensityChange & Source",
        "all tasks",
    ]  # fmt: skip
    assert (rows["k_shot"] == 16).all()
    assert rows["image_auroc"].nunique() > 1
    assert "tiny" in (out / "report.md").read_text()
