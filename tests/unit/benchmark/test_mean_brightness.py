# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The trivial baseline."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_mediclip import MedicalFolder
from anomalib_mediclip.benchmark.mean_brightness import brightness


def write(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 30), grey, np.uint8)).save(path)


@pytest.fixture
def dark_lesions(tmp_path: Path) -> MedicalFolder:
    """A set whose anomalous images are darker, but for one."""
    for index, grey in enumerate((100, 110, 120, 130)):
        write(tmp_path / "train" / "normal" / f"{index}.png", grey)
        write(tmp_path / "test" / "normal" / f"{index}.png", grey)
    for index, grey in enumerate((60, 70, 80, 125)):
        write(tmp_path / "test" / "abnormal" / f"{index}.png", grey)
    datamodule = MedicalFolder(tmp_path, k_shot=2)
    datamodule.setup()
    return datamodule


def test_takes_the_sign_that_serves_it_better(dark_lesions: MedicalFolder) -> None:
    predictions = brightness(dark_lesions)
    assert predictions.metrics()["image_auroc"] == pytest.approx(13 / 16)  # 3 x 4 + 1 of 16 pairs
    assert (predictions.scores < 0).all()  # darkness


def test_equals_mean_pixel_values_on_real_images(real_data: Path) -> None:
    from anomalib_mediclip import BrainMRI
    from anomalib_mediclip.io import read_image

    datamodule = BrainMRI(real_data / "brain_tumor_dataset")
    datamodule.setup()
    predictions = brightness(datamodule)
    means = [read_image(path).mean().item() for path in predictions.paths]
    auroc = roc_auc_score(predictions.labels, means)
    assert predictions.metrics()["image_auroc"] == pytest.approx(max(auroc, 1 - auroc), abs=1e-6)
