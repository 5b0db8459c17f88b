# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CutPaste through anomalib's Engine and command, with tiny random backbones."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.models import get_model
from PIL import Image, ImageDraw

from anomalib_mediclip import CalibrationPostProcessor, CutPaste, MedicalFolder
from anomalib_mediclip.export import ExportedModel
from anomalib_mediclip.io import read_image
from tests.conftest import REPOSITORY
from tests.integration.test_fitted_module import sample_datamodule, steps, tiny_model
from tests.integration.test_training import assert_same, checkpoint_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> tuple[CutPaste, dict[str, float]]:
    model = tiny_model()
    folder = tmp_path_factory.mktemp("run")
    (metrics,) = steps(folder, 3).train(model, datamodule=sample_datamodule(sample_data))
    return model.eval(), dict(metrics)


def test_anomalib_finds_it_by_its_short_name() -> None:
    assert isinstance(get_model("CutPaste", encoder="timm/resnet18", layer=3), CutPaste)


def test_it_is_trained_tested_and_calibrated_on_distances(trained) -> None:
    model, metrics = trained
    assert set(metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    images = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        raw, shown = model.model(images), model(images)
    threshold = model.post_processor.image_threshold
    torch.testing.assert_close(shown.pred_score, raw.pred_score / (raw.pred_score + threshold))
    with pytest.raises(TypeError, match=r"CutPaste are a distance.*DistanceCalibrationPostProcessor"):
        tiny_model(post_processor=CalibrationPostProcessor())


def test_same_seed_same_bits_whatever_the_global_generators_do(sample_data, tmp_path) -> None:
    runs = []
    for number, (seed, workers) in enumerate([(0, 0), (0, 2), (1, 0)]):
        torch.manual_seed(number)
        random.seed(number)
        model = tiny_model(seed=seed)
        steps(tmp_path / str(number), 3).fit(model, datamodule=sample_datamodule(sample_data, num_workers=workers))
        runs.append({name: value for name, value in model.state_dict().items() if name.startswith("model.")})
    assert_same(runs[0], runs[1])
    assert not torch.equal(runs[0]["model.head.0.weight"], runs[2]["model.head.0.weight"])
    assert not torch.equal(runs[0]["model.encoder.stages.0.0.weight"], runs[2]["model.encoder.stages.0.0.weight"])


@pytest.mark.parametrize("density", ["gaussian", "kde"])
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_exports_agree_on_real_images(sample_data, tmp_path, form, density) -> None:
    model = tiny_model(density=density)
    steps(tmp_path / "run", 2).fit(model, datamodule=sample_datamodule(sample_data))
    exported = ExportedModel(getattr(model.eval(), f"to_{form}")(tmp_path))
    for path in sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]:
        image = read_image(path)[None]
        with torch.no_grad():
            expected = model(image)
        found = exported(image.numpy())
        np.testing.assert_allclose(found["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
        np.testing.assert_allclose(found["pred_score"], expected.pred_score.numpy(), atol=1e-3)


@pytest.mark.parametrize("k_shot", [1, 2])
def test_very_small_support_sets_work(sample_data, tmp_path, k_shot) -> None:
    model = tiny_model()
    (metrics,) = steps(tmp_path, 2).train(model, datamodule=sample_datamodule(sample_data, k_shot=k_shot))
    assert 0 <= metrics["image_AUROC"] <= 1
    assert not model.post_processor.image_threshold.isnan()


def make_images(folder: Path, number: int, draw) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(len(str(folder)))
    for index in range(number):
        image = Image.fromarray(generator.integers(90, 110, (64, 64), dtype=np.uint8))
        draw(ImageDraw.Draw(image), generator)
        image.save(folder / f"{index}.png")


def test_constant_images_train_and_the_user_is_told(tmp_path, caplog) -> None:
    for name in ("train/normal", "test/normal", "test/abnormal"):
        make_images(tmp_path / "data" / name, 3, lambda draw, _: draw.rectangle((0, 0, 64, 64), fill=128))
    model = tiny_model(jitter=0.0)
    data = MedicalFolder(tmp_path / "data", k_shot=3)
    steps(tmp_path / "run", 2).fit(model, datamodule=data)
    assert "16 pasted images do not differ from the normal ones" in caplog.text
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 3, 64, 64)).pred_score.isfinite().all()


def test_a_disc_too_many_is_found_after_fifty_steps(tmp_path) -> None:
    def disc(draw, generator, value: int = 220) -> None:
        x, y = generator.integers(24, 40, 2).tolist()
        draw.ellipse((x - 14, y - 14, x + 14, y + 14), fill=value)

    def two_discs(draw, generator) -> None:
        disc(draw, generator)
        x, y = generator.choice([8, 56], 2).tolist()
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=220)

    make_images(tmp_path / "data" / "train" / "normal", 16, disc)
    make_images(tmp_path / "data" / "test" / "normal", 20, disc)
    make_images(tmp_path / "data" / "test" / "abnormal", 20, two_discs)
    model = tiny_model(originals=8, views=4, variant="binary")
    data = MedicalFolder(tmp_path / "data")
    (metrics,) = steps(tmp_path / "run", 50).train(model, datamodule=data)
    assert metrics["image_AUROC"] > 0.9


def test_a_loss_that_is_not_finite_stops_the_run_with_the_cure(sample_data, tmp_path) -> None:
    with pytest.raises(FloatingPointError, match=r"The loss is nan at step .*Lower --model.learning_rate \(1e\+20\)"):
        steps(tmp_path, 20).fit(tiny_model(learning_rate=1e20), datamodule=sample_datamodule(sample_data))


@pytest.mark.slow
def test_the_stock_command_trains_predicts_and_exports_the_lite_preset(sample_data, tmp_path) -> None:
    def anomalib(*arguments: object) -> str:
        command = [str(Path(sys.executable).with_name("anomalib")), *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout + result.stderr

    config = REPOSITORY / "configs" / "model" / "cut_paste_lite.yaml"
    options = ("--model.views", 2, "--trainer.max_steps", 2)
    data = ("--data", "MedicalFolder", "--data.root", sample_data, "--data.k_shot", 4)
    printed = anomalib("train", "--config", config, *options, *data)
    assert "image_AUROC" in printed
    checkpoint = checkpoint_of(tmp_path)
    anomalib("predict", "--model", "CutPaste", "--data", sample_data / "test" / "abnormal", "--ckpt_path", checkpoint)
    table = pd.read_csv(tmp_path / "results" / "CutPaste" / "v0" / "predictions.csv")
    assert table["score"].between(0, 1).all()
    assert table["score"].nunique() > 10
    anomalib("export", "--model", "CutPaste", "--ckpt_path", checkpoint, "--export_type", "onnx")
    assert "CutPaste on MedicalFolder" in next(tmp_path.rglob("MODEL_CARD.md")).read_text()
