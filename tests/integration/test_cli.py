# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The stock ``anomalib`` command, as a user runs it: lite preset on the shipped sample set."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import REPOSITORY

LITE = ["--config", str(REPOSITORY / "configs" / "model" / "mediclip_lite.yaml")]


def anomalib(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    executable = Path(sys.executable).with_name("anomalib")
    return subprocess.run(
        [str(executable), *map(str, arguments)], capture_output=True, text=True, cwd=folder, check=False
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> tuple[Path, str]:
    """Train two epochs once; the folder of the results, and what was printed."""
    folder = tmp_path_factory.mktemp("run")
    data = ("--data", "MedicalFolder", "--data.root", sample_data, "--data.k_shot", 8)
    result = anomalib("train", *LITE, *data, "--trainer.max_epochs", 2, folder=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder / "results" / "MediCLIP" / "MedicalFolder" / "v0", result.stdout + result.stderr


def test_help_lists_and_explains_the_arguments(tmp_path: Path) -> None:
    result = anomalib("train", "--model.help", "MediCLIP", folder=tmp_path)
    assert result.returncode == 0
    for argument in ("--model.encoder", "--model.layers", "--model.synthesis", "--model.seed"):
        assert argument in result.stdout
    for word in ("Frozen encoder", "open_clip", "Temperature tau of Eq. 2"):
        assert word in result.stdout


def test_train_prints_a_table_of_metrics(run: tuple[Path, str]) -> None:
    for metric in ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"):
        assert metric in run[1]
    assert "module(s) in eval mode" not in run[1]
    assert "Unexpected keys" not in run[1]


def test_train_writes_checkpoint_configuration_support_set_and_pictures(run: tuple[Path, str]) -> None:
    folder = run[0]
    assert (folder / "weights" / "lightning" / "model.ckpt").stat().st_size < 3_000_000
    assert "# k: 8" in (folder / "support_set.txt").read_text()
    assert (folder / "config.yaml").is_file()
    pictures = list((folder / "images").rglob("*.png"))
    assert len(pictures) == 40
    with Image.open(pictures[0]) as picture:
        assert picture.mode == "RGB"
        assert picture.width > picture.height > 300


def test_test_gives_the_same_metrics_as_train(run: tuple[Path, str], sample_data: Path, tmp_path: Path) -> None:
    checkpoint = run[0] / "weights" / "lightning" / "model.ckpt"
    data = ("--data", "MedicalFolder", "--data.root", sample_data, "--data.k_shot", 8)
    result = anomalib("test", *LITE, *data, "--ckpt_path", checkpoint, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert metrics_of(result.stdout) == metrics_of(run[1])


def metrics_of(printed: str) -> list[str]:
    return [line.replace(" ", "") for line in printed.splitlines() if "AUROC" in line or "F1Score" in line]


def test_predict_writes_a_picture_for_every_image(run: tuple[Path, str], sample_data: Path, tmp_path: Path) -> None:
    checkpoint = run[0] / "weights" / "lightning" / "model.ckpt"
    images = sample_data / "test" / "abnormal"
    result = anomalib("predict", *LITE, "--data", images, "--ckpt_path", checkpoint, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(list(tmp_path.rglob("*.png"))) == 20


@pytest.fixture(scope="module")
def real_images(sample_data: Path) -> list[torch.Tensor]:
    from anomalib_mediclip.io import read_image
    from tests.conftest import real_data_folder

    paths = sorted((sample_data / "test" / "abnormal").glob("*.png"))[:2]
    if folder := real_data_folder():
        paths += sorted((folder / "Dataset_BUSI_with_GT" / "malignant").glob("*).png"))[:2]
    return [read_image(path)[None] for path in paths]


@pytest.mark.parametrize("format_", ["torch", "onnx", "openvino"])
def test_export_agrees_with_the_checkpoint(run: tuple[Path, str], real_images, tmp_path: Path, format_: str) -> None:
    from anomalib_mediclip import MediCLIP

    checkpoint = run[0] / "weights" / "lightning" / "model.ckpt"
    result = anomalib("export", *LITE, "--export_type", format_, "--ckpt_path", checkpoint, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stdout + result.stderr
    assert len(result.stdout + result.stderr) < 6000
    model = MediCLIP.load_from_checkpoint(checkpoint).eval()
    exported = load_export(tmp_path / "results" / "weights" / format_, format_)
    for image in real_images:
        with torch.no_grad():
            expected = model(image)
        anomaly_map, score = exported(image)
        np.testing.assert_allclose(anomaly_map, expected.anomaly_map.numpy(), atol=1e-3)
        np.testing.assert_allclose(score, expected.pred_score.numpy(), atol=1e-3)


def load_export(folder: Path, format_: str):
    """Return a function from an image to anomaly map and score."""
    if format_ == "torch":
        model = torch.load(folder / "model.pt", weights_only=False)["model"].eval()
        return lambda image: (model(image).anomaly_map.detach().numpy(), model(image).pred_score.detach().numpy())
    if format_ == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        return lambda image: session.run(["anomaly_map", "pred_score"], {"input": image.numpy()})
    import openvino

    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: [compiled(image.numpy())[name] for name in ("anomaly_map", "pred_score")]


def test_unknown_encoder_ends_with_a_message_not_a_riddle(tmp_path: Path, sample_data: Path) -> None:
    data = ("--data", "MedicalFolder", "--data.root", sample_data)
    result = anomalib("train", "--model", "MediCLIP", "--model.encoder", "ViT-X-99", *data, folder=tmp_path)
    assert result.returncode != 0
    assert "Unknown encoder 'ViT-X-99'" in result.stderr


def test_stock_benchmark_resolves_our_names_and_trains_200_epochs(tmp_path: Path, sample_data: Path) -> None:
    config = {
        "accelerator": ["cpu"],
        "benchmark": {
            "seed": 0,
            "model": {
                "class_path": "MediCLIP",
                "init_args": {
                    "encoder": "timm/resnet18",
                    "weights": None,
                    "layers": [2, 3],
                    "prompt": "prototype",
                    "image_size": [64, 64],
                    "visualizer": False,
                },
            },
            "data": {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data), "k_shot": 2}},
        },
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(config))
    result = anomalib("benchmark", "--config", tmp_path / "benchmark.yaml", folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    (results,) = tmp_path.rglob("results.csv")
    row = pd.read_csv(results).iloc[0]
    assert 0 <= row["image_AUROC"] <= 1
    assert "max_epochs=200" in (tmp_path / "runs" / "pipeline.log").read_text() + result.stderr
