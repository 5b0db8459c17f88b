# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""One lite model for several data sets, through the stock command."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from anomalib.engine import Engine

from anomalib_mediclip import MediCLIP, UnifiedData
from tests.conftest import REPOSITORY
from tests.integration.test_cli import LITE, anomalib
from tests.unit.data.small_datasets import save_folder

RESULTS = Path("results") / "MediCLIP" / "UnifiedData"
CHECKPOINT = Path("weights") / "lightning" / "model.ckpt"


def learnt(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> tuple[Path, list[object]]:
    """Train two epochs on the sample and on a set without masks; the folder, and the options of the data."""
    folder = tmp_path_factory.mktemp("unified")
    noise = save_folder(folder / "data" / "noise")
    roots = {"sample": sample_data, "noise": noise}
    parts = {name: {"class_path": "MedicalFolder", "init_args": {"root": str(root)}} for name, root in roots.items()}
    data = ["--data", "UnifiedData", "--data.parts", json.dumps(parts), "--data.k_shot", 4]
    result = anomalib("train", *LITE, *data, "--trainer.max_epochs", 2, folder=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.search(r"image_AUROC\s*│\s*[01]\.\d+", result.stdout)
    return folder, data


def test_support_set_and_record_name_all_parts(run: tuple[Path, list[object]]) -> None:
    results = run[0] / RESULTS / "v0"
    lines = (results / "support_set.txt").read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert "# k: 8" in lines
    assert len(listed) == 8
    assert sum("noise/train/normal/" in line for line in listed) == 4
    record = json.loads((results / CHECKPOINT).with_suffix(".metrics.json").read_text())
    assert record["data"]["data_set"] == "UnifiedData (sample, noise)"
    assert record["images"] == 45


def test_a_resumed_run_ends_in_the_same_bits(run: tuple[Path, list[object]], tmp_path: Path) -> None:
    folder, data = run
    first = anomalib("fit", *LITE, *data, "--trainer.max_epochs", 1, folder=tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    checkpoint = shutil.copy(tmp_path / RESULTS / "v0" / CHECKPOINT, tmp_path / "first.ckpt")
    second = anomalib("fit", *LITE, *data, "--trainer.max_epochs", 2, "--ckpt_path", checkpoint, folder=tmp_path)
    assert second.returncode == 0, second.stderr[-3000:]
    assert "another support set" not in second.stderr
    resumed, whole = learnt(tmp_path / RESULTS / "v1" / CHECKPOINT), learnt(folder / RESULTS / "v0" / CHECKPOINT)
    assert set(resumed) == set(whole)
    for name, value in whole.items():
        assert resumed[name].allclose(value, rtol=0, atol=0, equal_nan=True), name


def test_test_repeats_the_metrics_and_predict_takes_every_test_image(
    run: tuple[Path, list[object]], tmp_path: Path
) -> None:
    folder, data = run
    checkpoint = folder / RESULTS / "v0" / CHECKPOINT
    options = ["--model", "MediCLIP", "--ckpt_path", checkpoint, *data]
    tested = anomalib("test", *options, folder=tmp_path)
    assert tested.returncode == 0, tested.stderr[-3000:]
    record = json.loads(checkpoint.with_suffix(".metrics.json").read_text())
    assert str(record["metrics"]["image_AUROC"])[:7] in tested.stdout
    predicted = anomalib("predict", *options, folder=tmp_path)
    assert predicted.returncode == 0, predicted.stderr[-3000:]
    tables = list(tmp_path.rglob("predictions.csv"))  # of the test and of the prediction
    assert [len(pd.read_csv(table)) for table in tables] == [record["images"]] * 2


def test_each_part_is_tested_by_itself(run: tuple[Path, list[object]], tmp_path: Path) -> None:
    folder, data = run
    unified = UnifiedData(json.loads(str(data[3])), k_shot=4)
    model = MediCLIP.load_from_checkpoint(folder / RESULTS / "v0" / CHECKPOINT)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    of_noise, of_sample = (engine.test(model, datamodule=unified.parts[name])[0] for name in ("noise", "sample"))
    assert "image_AUROC" in of_noise
    assert "pixel_AUROC" not in of_noise, "this part has no masks"
    assert "pixel_AUROC" in of_sample


def test_the_shipped_configuration_is_valid() -> None:
    specification = yaml.safe_load((REPOSITORY / "configs" / "data" / "unified.yaml").read_text())
    assert list(UnifiedData(**specification["init_args"]).parts) == ["BUSI", "BrainMRI", "chest_nih"]
