# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Prediction of folders, with a tiny random model: complete, one row and one picture an image, nothing kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.cli import AnomalibCLI
from anomalib.engine import Engine
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.io import read_image
from anomalib_mediclip.prediction.folder import PredictionDataset, prediction_loader
from tests.conftest import REPOSITORY

MODEL = {"encoder": "timm/resnet18", "layers": [2, 3], "prompt": "prototype", "image_size": (64, 64)}
ARGUMENTS = [
    *("--model", "MediCLIP", "--model.encoder", "timm/resnet18", "--model.weights", "null", "--model.layers", "[2, 3]"),
    *("--model.prompt", "prototype", "--model.image_size", "[64, 64]", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    model = MediCLIP(**MODEL, weights=None, visualizer=False)
    engine = Engine(default_root_dir=folder, accelerator="cpu", max_epochs=1, enable_progress_bar=False)
    engine.fit(model, datamodule=MedicalFolder(sample_data, k_shot=2))
    engine.trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """Return a folder of 70 images, enough for worker processes, with equal names in nested folders."""
    root = tmp_path_factory.mktemp("predict") / "clinic"
    sources = sorted((sample_data / "test").rglob("*.png"))
    for patient in ("a", "b"):
        folder = root / patient / "study"
        folder.mkdir(parents=True)
        for index in range(34):
            shutil.copy(sources[(index + 3 * (patient == "b")) % len(sources)], folder / f"{index}.png")
    ramp = np.linspace(1000, 4095, 80 * 60).reshape(80, 60).astype(np.uint16)
    Image.fromarray(ramp).save(root / "deep.png")
    Image.new("RGB", (40, 90), (90, 20, 20)).save(root / "colour.jpg")
    return root


def predict(folder: Path, data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Engine:
    """Run the command in this process, and return what it worked with."""
    monkeypatch.chdir(folder)
    common = ["--data", str(data), "--ckpt_path", str(checkpoint), "--trainer.enable_progress_bar", "false"]
    return AnomalibCLI(args=["predict", *ARGUMENTS, *common, *arguments]).engine


def table_of(folder: Path) -> pd.DataFrame:
    (path,) = folder.rglob("*.csv")
    assert path.name == "predictions.csv"
    return pd.read_csv(path)


def test_every_image_has_a_row_and_a_picture_and_nothing_is_kept(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = predict(tmp_path, images, checkpoint, monkeypatch)
    assert engine.trainer.predict_loop.predictions == []
    loader = engine.trainer.predict_dataloaders
    assert loader.num_workers == min(4, os.cpu_count() or 1)
    table = table_of(tmp_path)
    assert [Path(name) for name in table["file"]] == PredictionDataset(images, (64, 64)).paths
    pictures = [path.relative_to(tmp_path / "results" / "MediCLIP" / "latest") for path in tmp_path.rglob("*.png")]
    expected = [Path(name).relative_to(images.parent).as_posix() for name in table["file"]]
    assert sorted(path.as_posix() for path in pictures) == sorted(
        f"images/{name}" if name.endswith(".png") else f"images/{name}.png" for name in expected
    )


def test_scores_are_those_of_the_engine_which_returns_every_batch_whole(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(tmp_path, images, checkpoint, monkeypatch, "--model.visualizer", "false")
    table = table_of(tmp_path).set_index("file")
    assert not list(tmp_path.rglob("images"))
    model = MediCLIP.load_from_checkpoint(checkpoint)
    engine = Engine(default_root_dir=tmp_path / "engine", accelerator="cpu", enable_progress_bar=False)
    batches = engine.predict(model, data_path=images)
    assert len(batches) == len(table) == 70
    for batch in batches:
        assert batch.image.shape == (1, 3, 64, 64)
        assert batch.anomaly_map.shape[-2:] == (64, 64)
        row = table.loc[batch.image_path[0]]
        assert row["score"] == pytest.approx(batch.pred_score.item(), abs=1e-5)
        assert row["label"] == ("anomalous" if batch.pred_label.item() else "normal")
        assert row["threshold"] == model.post_processor.normalized_image_threshold.item() == 0.5


def test_predictions_are_kept_when_asked_for(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model.visualizer", "false", "--return_predictions", "true")
    engine = predict(tmp_path, images / "a", checkpoint, monkeypatch, *options)
    assert sum(len(batch.pred_score) for batch in engine.trainer.predict_loop.predictions) == 34


def test_unreadable_files_are_named_and_cost_no_other_prediction(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("0.png", "1.png", "3.png"):
        shutil.copy(images / "a" / "study" / name, damaged)
    (damaged / "2.png").write_bytes((damaged / "1.png").read_bytes()[:600])
    (damaged / "4.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 5 images could not be read: .*2\.png, .*4\.png\. All others are pred"):
        predict(tmp_path, damaged, checkpoint, monkeypatch)
    assert "2.png: truncated or damaged" in caplog.text
    assert "4.png: the file is empty" in caplog.text
    table = table_of(tmp_path / "results")
    assert list(table["label"] == "unreadable") == [False, False, True, False, True]
    assert list(table["score"].isna()) == [False, False, True, False, True]
    assert {path.name for path in (tmp_path / "results").rglob("*.png")} == {"0.png", "1.png", "3.png"}


@pytest.mark.slow
def test_two_processes_share_the_work_and_leave_one_table(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(images / "a" / "study", odd)
    (odd / "7.png").unlink()  # 33 images: an even split would have to repeat one
    processes = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    executable = str(Path(sys.executable).with_name("anomalib"))
    result = subprocess.run(
        [executable, "predict", *ARGUMENTS, *processes, "--data", str(odd), "--ckpt_path", str(checkpoint)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert [Path(name) for name in table_of(tmp_path)["file"]] == PredictionDataset(odd, (64, 64)).paths
    pictures = [path.name for path in (tmp_path / "results").rglob("*.png")]
    assert sorted(pictures) == sorted(path.name for path in odd.iterdir())


def test_images_are_batched_only_if_resizing_is_all_that_is_done_to_them(images: Path) -> None:
    resize = Resize((64, 64), antialias=True)
    batch = next(iter(prediction_loader(images / "a", (64, 64), resize)))
    assert batch.image.shape == (8, 3, 64, 64)
    assert torch.equal(batch.image[0], resize(read_image(batch.image_path[0])))
    assert torch.equal(resize(batch.image), batch.image)  # what the pre-processor does again
    for transform in (Compose([CenterCrop(50), resize]), Resize(64), None):
        alone = next(iter(prediction_loader(images / "a", (64, 64), transform)))
        assert torch.equal(alone.image, read_image(alone.image_path[0])[None])


def test_a_model_without_data_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="nothing to predict"):
        MediCLIP(**MODEL, weights=None).predict_dataloader()
