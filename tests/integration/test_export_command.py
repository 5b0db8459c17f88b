# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib export`` as a user runs it: what it writes and what it says."""

from pathlib import Path

import numpy as np
import pytest

from anomalib_mediclip.export import ExportedModel
from tests.integration.test_cli import LITE, anomalib

NOISE = ("Warning", "warnings.warn", "WARNING", "INFO:nncf", "No CUDA runtime", "Traceback")
# anomalib and timm raise these when they are imported, with and without the plugin
WARNINGS_OF_ANOMALIB = (
    "ignore:Importing from timm.models.layers:FutureWarning,"
    "ignore:The anomalib.models.components.dinov2 package:FutureWarning"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> tuple[Path, list[object]]:
    """Train one epoch; the checkpoint, and the arguments that name the data."""
    folder = tmp_path_factory.mktemp("run")
    data = ["--data", "MedicalFolder", "--data.root", sample_data, "--data.k_shot", 4]
    arguments = [*data, "--trainer.max_epochs", 1, "--model.visualizer", "false"]
    result = anomalib("train", *LITE, *arguments, folder=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return next(folder.rglob("v0")) / "weights" / "lightning" / "model.ckpt", data


def test_quantised_export_says_what_it_does_and_nothing_else(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", WARNINGS_OF_ANOMALIB)
    checkpoint, data = run
    quantise = ["--export_type", "openvino", "--compression_type", "INT8_PTQ", *data]
    result = anomalib("export", *LITE, *quantise, "--ckpt_path", checkpoint, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    printed = result.stdout + result.stderr
    assert "Exporting MediCLIP (timm/tf_efficientnet_lite0.in1k) to OpenVINO INT8_PTQ" in printed
    assert "Quantising on" in printed
    assert "MODEL_CARD.md" in printed
    assert not [line for line in printed.splitlines() if any(word in line for word in NOISE)]
    assert len(printed) < 8000
    folder = tmp_path / "results" / "weights" / "openvino"
    assert "| normal images trained on (k) | 4 |" in (folder / "MODEL_CARD.md").read_text()
    assert "| image_AUROC | 0." in (folder / "MODEL_CARD.md").read_text()
    image = np.random.default_rng(0).random((1, 3, 90, 70), dtype=np.float32)
    assert ExportedModel(folder / "model.xml")(image)["anomaly_map"].shape == (1, 1, 224, 224)


def test_quantised_export_without_data_says_what_to_give(run, tmp_path: Path) -> None:
    quantise = ["--export_type", "openvino", "--compression_type", "INT8_PTQ"]
    result = anomalib("export", *LITE, *quantise, "--ckpt_path", run[0], folder=tmp_path)
    assert result.returncode != 0
    assert "INT8_PTQ needs images to calibrate on: give --data as in training" in result.stderr
    assert not list(tmp_path.rglob("*.xml"))
