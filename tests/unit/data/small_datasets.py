# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Small data sets that the tests of the datamodules build."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 48


def save_image(path: Path, seed: int = 0) -> Path:
    """Save grey noise that depends on the seed."""
    return _save(path, np.random.default_rng(seed).integers(1, 255, (SIDE, SIDE), dtype=np.uint8))


def save_mask(path: Path, row: int = 0) -> Path:
    """Save a mask with four rows of lesion from the given one on."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[row : row + 4] = 255
    return _save(path, mask)


def save_folder(root: Path, masks: Iterable[str] = (), normal: int = 6, abnormal: int = 3) -> Path:
    """Build the default layout of MedicalFolder, with images 1, 2, ... in each folder."""
    folders = {"train/normal": normal, "test/normal": 2, "test/abnormal": abnormal}
    for offset, (folder, count) in enumerate(folders.items()):
        for number in range(1, count + 1):
            save_image(root / folder / f"{number}.png", seed=100 * offset + number)
    for row, name in enumerate(masks):
        save_mask(root / "masks" / name, 4 * row)
    return root


def save_industrial(root: Path, categories: Iterable[str], defect: str = "broken", suffix: str = "_mask") -> Path:
    """Build the layout of MVTec AD: grey images, and squares of noise in the anomalous ones; colour is everywhere.

    anomalib's VisA has the same below ``visa_pytorch``, with the one defect ``bad`` and masks named like the images.
    """
    for offset, category in enumerate(categories):
        rng = np.random.default_rng(offset)
        for folder, count in {"train/good": 2, "test/good": 2, f"test/{defect}": 3}.items():
            for number in range(count):
                pixels = rng.integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8)
                if folder == f"test/{defect}":
                    row, column = rng.integers(0, SIDE - 16, 2)
                    window = slice(row, row + 16), slice(column, column + 16)
                    pixels[window] = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
                    mask[window] = 255
                    _save(root / category / "ground_truth" / defect / f"{number:03}{suffix}.png", mask)
                _save(root / category / folder / f"{number:03}.png", pixels)
    return root


def _save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
