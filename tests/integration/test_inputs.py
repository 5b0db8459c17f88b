# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Data as users have them, from the files to a trained model."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from PIL import Image

from anomalib_mediclip import MedicalFolder
from tests.integration.test_training import checkpoint_of, engine, tiny_model


def test_normal_images_alone_give_a_calibrated_model(
    official, sample_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(sample_data / "train", tmp_path / "mine" / "train")
    model = tiny_model(official)
    with caplog.at_level(logging.WARNING):
        metrics = engine(tmp_path).train(model, datamodule=MedicalFolder(tmp_path / "mine", k_shot=4))
    assert metrics == []
    assert "nothing is tested" in caplog.text
    state = torch.load(checkpoint_of(tmp_path), weights_only=True)["state_dict"]
    assert any("image_threshold" in name and value.isfinite().all() for name, value in state.items())
    with pytest.raises(ValueError, match="nothing to test"):
        engine(tmp_path / "test").test(model, datamodule=MedicalFolder(tmp_path / "mine", k_shot=4))


def copy_deep(source: Path, target: Path) -> None:
    """Copy images at 12 bits in 16."""
    for path in sorted(source.rglob("*.png")):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16 + 100).save(copy)


@pytest.mark.slow
def test_folder_of_anomalib_trains_and_tests_on_deep_images(official, sample_data: Path, tmp_path: Path) -> None:
    copy_deep(sample_data / "train", tmp_path / "deep" / "train")
    copy_deep(sample_data / "test", tmp_path / "deep" / "test")
    folders = {"normal_dir": "train/normal", "normal_test_dir": "test/normal", "abnormal_dir": "test/abnormal"}
    datamodule = Folder("mine", root=tmp_path / "deep", **folders, val_split_mode="same_as_test", num_workers=0)
    metrics = engine(tmp_path).train(tiny_model(official), datamodule=datamodule)
    assert 0 <= metrics[0]["image_AUROC"] <= 1
    ours = MedicalFolder(tmp_path / "deep", k_shot=None)
    ours.setup()
    expected = {item.image_path: item.image for item in ours.train_data}
    for item in datamodule.train_data:
        assert float(item.image.mean()) == pytest.approx(float(expected[item.image_path].mean()), abs=0.01)
        assert item.image.unique().numel() > 50, "not saturated"


def test_a_fault_ends_the_training_before_it_begins(official, sample_data: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_data, tmp_path / "mine")
    broken = tmp_path / "mine" / "test" / "normal" / "000.png"
    broken.write_bytes(b"rubbish")
    model = tiny_model(official)
    with pytest.raises(ValueError, match=r"1 of 40 test images cannot be used:\n  cannot read .*000\.png"):
        engine(tmp_path).train(model, datamodule=MedicalFolder(tmp_path / "mine", k_shot=4))
    assert not list(tmp_path.rglob("*.ckpt"))
    metrics = engine(tmp_path).train(model, datamodule=MedicalFolder(tmp_path / "mine", k_shot=4, on_error="skip"))
    assert "image_AUROC" in metrics[0]
