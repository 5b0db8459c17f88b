# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The report of a prediction says with what it was made, and how much of it could be read."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine

from anomalib_mediclip import MedicalFolder
from anomalib_mediclip.display import set_slice_plane, set_window
from tests.helpers.brightness import Brightness
from tests.helpers.volumes import make_nifti


@pytest.fixture
def images(tmp_path: Path, sample_data: Path) -> Path:
    folder = tmp_path / "images"
    make_nifti(folder / "scan.nii.gz", np.arange(8 * 9 * 10, dtype=np.int16).reshape(8, 9, 10))
    (folder / "picture.png").write_bytes((sample_data / "train" / "normal" / "000.png").read_bytes())
    (folder / "damaged.png").write_bytes(b"\x89PNG")
    return folder


def report_of(engine: Engine) -> dict[str, object]:
    return json.loads((Path(engine.trainer.default_root_dir) / "run.json").read_text(encoding="utf-8"))


def test_report_of_a_checkpoint(tmp_path: Path, images: Path) -> None:
    set_window("brain")
    set_slice_plane("coronal")
    model = Brightness()
    model.post_processor._image_threshold.fill_(0.25)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False)
    engine._setup_trainer(model)
    engine.trainer.strategy.connect(model)
    checkpoint = tmp_path / "model.ckpt"
    engine.trainer.save_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="1 of 11 images could not be read"):
        engine.predict(Brightness(), data_path=images, ckpt_path=checkpoint)
    report = report_of(engine)
    assert report["checkpoint"] == {
        "path": str(checkpoint.resolve()),
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }
    assert report["model"] == "tests.helpers.brightness.Brightness"
    assert (report["files"], report["images"], report["unreadable"]) == (3, 11, 1)
    assert report["device"].startswith("cpu")
    assert 0 < report["seconds"] < 600
    assert report["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"pydicom", "nibabel", "highdicom", "anomalib-mediclip"} <= report["versions"].keys()
    assert report["thresholds"] == {
        "image_threshold": 0.25,
        "pixel_threshold": 0.25,  # that of images, where there is none for pixels
        "image_sensitivity": 0.5,
        "pixel_sensitivity": 0.5,
    }
    assert (report["display"]["window"], report["display"]["slice_plane"]) == ("brain", "coronal")


def test_report_of_a_model_without_a_checkpoint(tmp_path: Path, images: Path) -> None:
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False)
    engine.predict(Brightness(), data_path=images / "scan.nii.gz")
    report = report_of(engine)
    assert report["checkpoint"] is None
    assert (report["files"], report["images"], report["unreadable"]) == (1, 10, 0)


def test_a_test_has_the_report_of_its_table(tmp_path: Path, sample_data: Path) -> None:
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False)
    datamodule = MedicalFolder(sample_data, k_shot=4, seed=0, num_workers=0)
    engine.test(Brightness((32, 32), visualizer=True), datamodule=datamodule)
    report = report_of(engine)
    assert (report["files"], report["images"], report["unreadable"]) == (None, len(datamodule.test_data), 0)
    assert report["checkpoint"] is None
