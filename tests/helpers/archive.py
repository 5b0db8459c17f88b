# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""An archive of generated images in nested folders, some of them damaged, and a tiny model for it."""

from pathlib import Path

import cv2
import numpy as np
from anomalib.engine import Engine

from anomalib_mediclip import MedicalFolder, MediCLIP

TINY = {"encoder": "timm/resnet18", "layers": [2, 3], "prompt": "prototype", "image_size": (64, 64), "weights": None}


def write_archive(root: Path, number: int, damaged: int, in_folder: int = 500) -> Path:
    """Write grey images of 48 x 48 pixels with a bright disc each; evenly spread ones are cut short.

    Args:
        root (Path): Folder to make.
        number (int): Images, the damaged ones included.
        damaged (int): How many are damaged.
        in_folder (int, optional): Images in a folder. Defaults to ``500``.

    Returns:
        Path: The folder.
    """
    random = np.random.default_rng(0)
    for index in range(number):
        folder = root / f"{index // in_folder:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        image = np.full((48, 48), 90, np.uint8)
        column, row, radius = (int(value) for value in random.integers((8, 8, 3), (40, 40, 9)))
        cv2.circle(image, (column, row), radius, int(random.integers(120, 255)), -1)
        content = cv2.imencode(".png", image)[1].tobytes()
        is_damaged = damaged and index % (number // damaged) == 7
        (folder / f"{index:06d}.png").write_bytes(content[:40] if is_damaged else content)
    return root


def write_checkpoint(folder: Path, sample: Path) -> Path:
    """Train a tiny model for an epoch, and return its checkpoint."""
    engine = Engine(default_root_dir=folder, accelerator="cpu", max_epochs=1, enable_progress_bar=False, logger=False)
    engine.fit(MediCLIP(**TINY, visualizer=False), datamodule=MedicalFolder(sample, k_shot=2))
    engine.trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"
