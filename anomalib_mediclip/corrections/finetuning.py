# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Training of a trained model that goes on from its weights, on listed images."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anomalib.engine import Engine

from anomalib_mediclip.data.datamodule import FewShotDataModule
from anomalib_mediclip.data.samples import Sample

EPOCHS_OF_FRESH_PAINTINGS = 50


class ListedImages(FewShotDataModule):
    """Normal images, all of them to train on, and nothing to test.

    Args:
        images (Sequence[Path]): Images.
        seed (int): Seed of the order and of the synthetic validation set.
    """

    expected_layout = "the listed images"

    def __init__(self, images: Sequence[Path], seed: int) -> None:
        super().__init__(os.path.commonpath([path.absolute().parent for path in images]), k_shot="all", seed=seed)
        self._images = list(images)

    def read_layout(self) -> tuple[list[Sample], list[Sample]]:
        """List the images."""
        return [Sample(path) for path in self._images], []

    def read_samples(self) -> tuple[list[Sample], list[Sample]]:
        """List the images, whatever else lies in their folder."""
        return self.read_layout()


def train_on(model: Any, images: Sequence[Path], seed: int) -> int:
    """Train a model on, from the weights that it has: each painted view of each image is seen once.

    Memory and calibration are those of the images when it ends.

    Args:
        model (Any): Model, changed in place.
        images (Sequence[Path]): All support images.
        seed (int): Seed of the data.

    Returns:
        int: Number of epochs.
    """
    epochs: int = model.hparams["views"] or EPOCHS_OF_FRESH_PAINTINGS
    with TemporaryDirectory() as folder:
        engine = Engine(default_root_dir=folder, max_epochs=epochs, logger=False)
        model.train()  # Lightning trains in the mode that it finds
        engine.fit(model, datamodule=ListedImages(images, seed))
    model.cpu().eval()
    return epochs
