# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Statistics of the tasks against those of the official implementation."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

OFFICIAL = {
    "max_anomalies": 2,
    "blending": "paste",
    "cut_paste_label": "changed",
    "intensity_noise": "normalised",
    "feather": True,
    "alpha_distribution": "log_uniform",
    "shear": True,
    "foreground": False,
}


@pytest.mark.parametrize("task", ["cut_paste", "gauss_intensity", "source"])
def test_medians_agree_with_the_official_code(real_data, fixtures, task):
    """Area is the share of the label above 0.5, change the mean of |changed - image| over these pixels."""
    official = json.loads((fixtures / "official_synthesis_statistics.json").read_text())
    folder = real_data / "brain_tumor_dataset" / "no"
    resized = [Image.open(folder / name).resize((224, 224), Image.Resampling.BILINEAR) for name in official["support"]]
    images = [pil_to_tensor(image.convert("L")) / 255 for image in resized]
    generator = MedicalAnomalyGenerator(tasks={task: 1.0}, **OFFICIAL)
    generator.set_support_set(images)
    areas, changes = [], []
    for epoch in range(25):
        changed, labels = generator(torch.stack(images), epoch=epoch)
        for image, result, label in zip(images, changed, labels > 0.5, strict=True):
            areas.append(label.float().mean().item())
            changes.append((result - image).abs()[label].mean().item())
    expected = official["tasks"][task]
    assert np.median(areas) == pytest.approx(expected["area_fraction_p5_p50_p95_mean"][1], rel=0.15)
    assert np.nanmedian(changes) == pytest.approx(expected["mean_abs_change_inside_mask_p5_p50_p95_mean"][1], rel=0.15)
