# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Options of the ``anomalib`` command: each is applied, taken from the checkpoint, or refused."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.integration.test_cli import LITE, anomalib, metrics_of

pytestmark = pytest.mark.slow

TORCH = ["--export_type", "torch"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> list[object]:
    """Return the arguments of a data set with an odd number of test images."""
    folder = tmp_path_factory.mktemp("data") / "odd"
    shutil.copytree(sample_data, folder)
    first = min((folder / "test" / "normal").glob("*.png"))
    first.unlink()
    return ["--data", "MedicalFolder", "--data.root", folder, "--data.k_shot", 4]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: list[object]) -> tuple[Path, str]:
    """Train with an optimiser and a global seed of the user's; the checkpoint, and what was printed."""
    folder = tmp_path_factory.mktemp("run")
    optimizer = ["--optimizer", "SGD", "--optimizer.lr", 0.25, "--lr_scheduler", "ExponentialLR"]
    schedule = ["--lr_scheduler.gamma", 0.5, "--seed_everything", 3, "--trainer.max_epochs", 2]
    result = anomalib("train", *LITE, *data, *optimizer, *schedule, folder=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    checkpoint = next(folder.rglob("v0")) / "weights" / "lightning" / "model.ckpt"
    return checkpoint, result.stdout


def test_train_applies_optimiser_schedule_and_global_seed(run) -> None:
    checkpoint = torch.load(run[0], weights_only=True)
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert "nesterov" in group  # Adam has none
    assert group["lr"] == 0.25 * 0.5**2
    assert checkpoint["training_record"]["seed"] == checkpoint["training_record"]["data"]["seed"] == 3


def test_predict_takes_the_options_from_the_checkpoint_and_the_sensitivity_from_the_user(run, data, tmp_path) -> None:
    sensitivity = ["--model.post_processor.image_sensitivity", 0.9, "--model.visualizer", "false"]
    folder = data[3] / "test" / "normal"
    result = anomalib(
        "predict", "--model", "MediCLIP", "--ckpt_path", run[0], *sensitivity, "--data", folder, folder=tmp_path
    )
    assert result.returncode == 0, result.stderr[-3000:]
    with next(tmp_path.rglob("predictions.csv")).open() as table:
        rows = list(csv.DictReader(table))
    assert {round(float(row["threshold"]), 6) for row in rows} == {0.1}
    assert all((row["label"] == "anomalous") == (float(row["score"]) > 0.1) for row in rows)


def test_two_processes_measure_what_one_does(run, data, tmp_path) -> None:
    processes = ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    model = ["--model", "MediCLIP", "--ckpt_path", run[0], "--model.visualizer", "false"]
    result = anomalib("test", *model, *data, "--data.seed", 3, "--data.eval_batch_size", 7, *processes, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert metrics_of(result.stdout) == metrics_of(run[1])


@pytest.mark.parametrize(
    ("command", "arguments", "messages"),
    [
        ("export", [*TORCH, "--model.image_size", "[256,256]"], ["image_size (256, 256) is given", "(224, 224)"]),
        ("predict", ["--model.encoder", "ViT-B-16"], ["'timm/tf_efficientnet_lite0.in1k'", "'ViT-B-16'"]),
        ("export", ["--export_type", "onnx", "--compression_type", "INT8"], ["only OpenVINO files are compressed"]),
        ("predict", ["--model.post_processor.image_sensitivity", "5"], ["image_sensitivity=5.0: it must be in [0, 1]"]),
        ("predict", ["--model", "SimpleNet"], ["belongs to MediCLIP, this model is SimpleNet"]),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(run, data, tmp_path, command, arguments, messages) -> None:
    model = [] if "--model" in arguments else ["--model", "MediCLIP"]
    target = ["--data", data[3] / "test" / "normal"] if command == "predict" else []
    result = anomalib(command, *model, *arguments, "--ckpt_path", run[0], *target, folder=tmp_path)
    assert result.returncode != 0
    assert not [message for message in messages if message not in " ".join(result.stderr.split())], result.stderr[
        -3000:
    ]
    assert not list(tmp_path.rglob("*.onnx")) + list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("predictions.csv"))


def test_a_schedule_without_an_optimiser_is_refused(data, tmp_path) -> None:
    schedule = ["--lr_scheduler", "ExponentialLR", "--lr_scheduler.gamma", 0.5]
    result = anomalib("train", *LITE, *data, *schedule, folder=tmp_path)
    assert result.returncode != 0
    assert "--lr_scheduler needs --optimizer" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "AnoDDPM", "--model.image_size", "[230, 230]"], "image_size=(230, 230)"),
        (["--model", "SimpleNet", "--model.noise", -1], "noise=-1.0"),
        (["--config", LITE[1], "--data.k_shot", 0], "k_shot=0"),
    ],
)
def test_a_wrong_option_of_a_model_ends_with_its_sentence(tmp_path, sample_data, arguments, sentence) -> None:
    data = ["--data", "MedicalFolder", "--data.root", sample_data]
    result = anomalib("train", *arguments[:2], *data, *arguments[2:], folder=tmp_path)
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert sentence in lines[-1]
    assert not any("Traceback" in line or "Parser" in line for line in lines)


def test_a_damaged_checkpoint_is_named(run, data, tmp_path) -> None:
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(run[0].read_bytes()[:1000])
    result = anomalib(
        "predict", "--model", "MediCLIP", "--ckpt_path", damaged, "--data", data[3] / "test", folder=tmp_path
    )
    assert result.returncode != 0
    assert f"{damaged} (1000 bytes) cannot be read as a checkpoint" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_the_saved_configuration_repeats_the_run(run) -> None:
    configuration = yaml.safe_load((run[0].parents[2] / "config.yaml").read_text())
    assert configuration["seed_everything"] == 3
    assert configuration["optimizer"]["init_args"]["lr"] == 0.25
