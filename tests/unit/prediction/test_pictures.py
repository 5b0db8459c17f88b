# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from PIL import Image

from anomalib_mediclip import MedicalVisualizer
from anomalib_mediclip.prediction.pictures import CAPTION_HEIGHT, MARGIN, PANEL_HEIGHT, TITLE_HEIGHT, draw_prediction

TOP = CAPTION_HEIGHT + TITLE_HEIGHT


def predicted(value: float, **fields) -> ImageItem:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[16:48, 16:48] = True
    return ImageItem(
        **{
            "image": torch.full((3, 64, 64), 0.5),
            "anomaly_map": torch.full((64, 64), value),
            "pred_mask": mask,
            "pred_score": torch.tensor(value),
            "pred_label": torch.tensor(value > 0.5),
        }
        | fields
    )


def panels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)[TOP : TOP + PANEL_HEIGHT].astype(int)


def test_colours_mean_the_same_in_every_picture() -> None:
    """A map without contrast must not be stretched: 0.2 everywhere is blue, 0.9 everywhere is red."""
    calm, alarming = (panels(draw_prediction(predicted(value))) for value in (0.2, 0.9))
    centre = PANEL_HEIGHT // 2, 2 * MARGIN + PANEL_HEIGHT + PANEL_HEIGHT // 2
    red, blue = 0, 2
    assert calm[centre][blue] > calm[centre][red]
    assert alarming[centre][red] > alarming[centre][blue]


def test_outline_follows_the_predicted_mask() -> None:
    with_mask = panels(draw_prediction(predicted(0.9)))
    without = panels(draw_prediction(predicted(0.9, pred_mask=torch.zeros(64, 64, dtype=torch.bool))))
    changed = np.argwhere((with_mask != without).any(axis=2))
    quarter = PANEL_HEIGHT // 4
    assert changed[:, 0].min() == pytest.approx(quarter, abs=4)
    assert changed[:, 0].max() == pytest.approx(3 * quarter, abs=4)


def test_the_image_keeps_its_aspect_ratio(tmp_path: Path) -> None:
    Image.new("L", (300, 150), 128).save(tmp_path / "wide.png")
    item = predicted(0.5, image_path=str(tmp_path / "wide.png"))
    assert draw_prediction(item).width > 3 * 2 * PANEL_HEIGHT


def test_sixteen_bit_images_are_not_drawn_white(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    first = panels(draw_prediction(predicted(0.5, image_path=str(tmp_path / "deep.png"))))
    assert first[:, MARGIN : MARGIN + PANEL_HEIGHT].mean() < 200


def test_writes_a_file_for_every_image_of_a_batch(tmp_path: Path) -> None:
    paths = []
    for index in range(2):
        paths.append(str(tmp_path / f"in_{index}.png"))
        Image.new("RGB", (64, 64)).save(paths[-1])
    batch = ImageBatch(
        image=torch.rand(2, 3, 64, 64),
        anomaly_map=torch.rand(2, 64, 64),
        pred_score=torch.rand(2),
        pred_label=torch.tensor([True, False]),
        pred_mask=torch.zeros(2, 64, 64),
        image_path=paths,
    )
    trainer = type("Trainer", (), {"default_root_dir": str(tmp_path), "datamodule": None, "predicting": False})()
    MedicalVisualizer(output_dir=tmp_path / "out").on_predict_batch_end(trainer, None, None, batch, 0)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["in_0.png", "in_1.png"]
