# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A new method of 60 lines, ``tests/helpers/throw_away.py``, gets everything that the plugin's own models have."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from anomalib_mediclip import CalibrationPostProcessor, MedicalFolder
from anomalib_mediclip.evaluation import DistanceCalibrationPostProcessor
from anomalib_mediclip.io import read_image
from anomalib_mediclip.parity import write_parity_report
from tests.conftest import REPOSITORY
from tests.helpers import throw_away
from tests.helpers.throw_away import Throwaway
from tests.integration.test_training import assert_same, checkpoint_of, engine

CLASS_PATH = "tests.helpers.throw_away.Throwaway"


def anomalib(*arguments: object, folder: Path) -> str:
    command = [str(Path(sys.executable).with_name("anomalib")), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


def weights(model: Throwaway) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def datamodule(root: Path) -> MedicalFolder:
    return MedicalFolder(root, k_shot=8, train_batch_size=4)


def fitted(root: Path, folder: Path, epochs: int, **options) -> Throwaway:
    model = Throwaway(visualizer=False)
    engine(folder, epochs).fit(model, datamodule=datamodule(root), **options)
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> tuple[Path, str]:
    """Train through the stock command; the folder of the run, and what was printed."""
    folder = tmp_path_factory.mktemp("run")
    data = ("--data", "MedicalFolder", "--data.root", sample_data, "--data.k_shot", 8)
    printed = anomalib("train", "--model", CLASS_PATH, *data, folder=folder)
    return folder / "results" / "Throwaway" / "MedicalFolder" / "v0", printed


def test_it_is_short_and_mentions_no_encoder() -> None:
    source = inspect.getsource(throw_away)
    assert len(source.splitlines()) <= 60
    assert "encoder" not in source.replace("autoencoder", "").replace("Autoencoder", "")


def test_the_stock_command_trains_it_for_its_own_epochs_and_tests_it(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    assert "image_AUROC" in printed
    assert "pixel_AUROC" in printed
    checkpoint = torch.load(folder / "weights" / "lightning" / "model.ckpt", weights_only=True)
    assert checkpoint["training_record"]["epochs"] == 3
    assert checkpoint["model"] == "Throwaway"
    assert len(list((folder / "images").rglob("*.png"))) == 40


def test_it_is_calibrated_on_distances(trained: tuple[Path, str], sample_data: Path, tmp_path: Path) -> None:
    model = Throwaway.load_from_checkpoint(trained[0] / "weights" / "lightning" / "model.ckpt").eval()
    assert isinstance(model.post_processor, DistanceCalibrationPostProcessor)
    assert model.post_processor.image_threshold > 0
    image = read_image(next((sample_data / "test" / "abnormal").glob("*.png")))[None]
    raw = model.model(model.pre_processor(image)).pred_score
    torch.testing.assert_close(model(image).pred_score, raw / (raw + model.post_processor.image_threshold))
    with pytest.raises(TypeError, match=r"Throwaway are a distance.*DistanceCalibrationPostProcessor"):
        Throwaway(post_processor=CalibrationPostProcessor())


def test_the_stock_command_predicts_with_it(trained: tuple[Path, str], sample_data: Path, tmp_path: Path) -> None:
    checkpoint = trained[0] / "weights" / "lightning" / "model.ckpt"
    images = sample_data / "test" / "abnormal"
    anomalib("predict", "--model", CLASS_PATH, "--data", images, "--ckpt_path", checkpoint, folder=tmp_path)
    table = pd.read_csv(next(tmp_path.rglob("predictions.csv")))
    assert len(table) == 20
    assert table["score"].between(0, 1).all()
    assert table["score"].nunique() > 10


def test_a_resumed_run_ends_in_the_bits_of_an_uninterrupted_one(sample_data: Path, tmp_path: Path) -> None:
    whole = weights(fitted(sample_data, tmp_path / "whole", epochs=4))
    assert not torch.equal(whole["autoencoder.0.weight"], weights(Throwaway())["autoencoder.0.weight"])
    assert not torch.equal(whole["discriminator.0.weight"], weights(Throwaway())["discriminator.0.weight"])
    fitted(sample_data, tmp_path / "cut", epochs=2)
    resumed = fitted(sample_data, tmp_path / "resumed", epochs=4, ckpt_path=checkpoint_of(tmp_path / "cut"))
    assert_same(whole, weights(resumed))


def test_other_options_are_refused_unless_they_matter_in_training_only(trained: tuple[Path, str]) -> None:
    checkpoint = trained[0] / "weights" / "lightning" / "model.ckpt"
    Throwaway.load_from_checkpoint(checkpoint, learning_rate=1.0)
    with pytest.raises(ValueError, match=r"Give --model\.width 8"):
        Throwaway.load_from_checkpoint(checkpoint, width=4)


def test_either_loss_that_is_not_finite_stops_the_run(sample_data: Path, tmp_path: Path) -> None:
    model = Throwaway(visualizer=False)
    forward = model.model.discriminator.forward
    model.model.discriminator.forward = lambda images: forward(images) * float("nan")
    with pytest.raises(FloatingPointError, match="The generator_loss is nan at step 0"):
        engine(tmp_path, 2).fit(model, datamodule=datamodule(sample_data))


def test_it_exports_to_onnx_with_parity_and_a_card(trained: tuple[Path, str], sample_data: Path, tmp_path) -> None:
    import onnxruntime

    checkpoint = trained[0] / "weights" / "lightning" / "model.ckpt"
    model = Throwaway.load_from_checkpoint(checkpoint).eval()
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path), providers=["CPUExecutionProvider"])
    image = read_image(next((sample_data / "test" / "abnormal").glob("*.png")))[None]
    anomaly_map, score = session.run(["anomaly_map", "pred_score"], {"input": image.numpy()})
    with torch.no_grad():
        expected = model(image)
    np.testing.assert_allclose(anomaly_map, expected.anomaly_map.numpy(), atol=1e-3)
    np.testing.assert_allclose(score, expected.pred_score.numpy(), atol=1e-3)
    card = next(tmp_path.rglob("MODEL_CARD.md")).read_text()
    assert "# Throwaway on MedicalFolder" in card
    assert "encoder" not in card


def test_int8_which_quantises_a_frozen_encoder_is_refused(trained: tuple[Path, str], tmp_path: Path) -> None:
    from anomalib.deploy import CompressionType

    pytest.importorskip("openvino")
    model = Throwaway.load_from_checkpoint(trained[0] / "weights" / "lightning" / "model.ckpt")
    with pytest.raises(ValueError, match=r"Throwaway has none\. Use --compression_type FP16"):
        model.to_openvino(tmp_path, compression_type=CompressionType.INT8)


def test_the_parity_report_compares_its_exports(trained: tuple[Path, str], sample_data: Path, tmp_path: Path) -> None:
    checkpoint = trained[0] / "weights" / "lightning" / "model.ckpt"
    images = sample_data / "test"
    page, failed = write_parity_report(
        checkpoint, images=images, formats=("torch", "onnx"), number=4, rounds=1, output=tmp_path
    )
    assert not failed
    assert "Throwaway, 32 x 32" in page.read_text()
    assert pd.read_csv(tmp_path / "parity.csv")["map_max"].max() < 1e-3


def test_it_appears_in_a_benchmark_report(sample_data: Path, tmp_path: Path) -> None:
    section = {
        "seeds": [0],
        "k_shot": [4],
        "data": {"sample": {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data)}}},
        "models": {"Throwaway": {"class_path": CLASS_PATH}},
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump({"accelerator": "cpu", "few_shot_benchmark": section}))
    anomalib("few_shot_benchmark", "--config", "benchmark.yaml", "--output", "out", folder=tmp_path)
    row = pd.read_csv(tmp_path / "out" / "results.csv").set_index("model").loc["Throwaway"]
    assert row["trainable_parameters"] == sum(p.numel() for p in Throwaway().model.parameters())
    assert 0 <= row["image_auroc"] <= 1
    assert "Throwaway" in (tmp_path / "out" / "report.md").read_text()
