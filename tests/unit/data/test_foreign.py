# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Data sets of anomalib, read as those of this package."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from PIL import Image

from anomalib_mediclip.data import MedicalFolder
from anomalib_mediclip.data.foreign import read_as_ours
from tests.unit.data.small_datasets import save_folder


def make_deep(root: Path) -> None:
    for index, path in enumerate(sorted(root.rglob("*.png"))):
        if "masks" not in path.parts:
            Image.fromarray((np.arange(48 * 48, dtype=np.uint16) + index + 300).reshape(48, 48)).save(path)


def folder(root: Path, **arguments: object) -> Folder:
    datamodule = Folder(
        "mine",
        root=root,
        normal_dir="train/normal",
        normal_test_dir="test/normal",
        abnormal_dir="test/abnormal",
        mask_dir="masks",
        val_split_mode="same_as_test",
        **arguments,
    )
    datamodule.setup()
    return datamodule


def test_folder_of_anomalib_reads_deep_images_and_masks_as_ours(tmp_path: Path) -> None:
    make_deep(save_folder(tmp_path, ["1.png", "2.png", "3.png"]))
    theirs = folder(tmp_path)
    assert theirs.train_data[0].image.min() == 1, "anomalib saturates"
    read_as_ours(theirs)
    ours = MedicalFolder(tmp_path, k_shot=None)
    ours.setup()
    for name in ("train_data", "test_data"):
        found = {item.image_path: item for item in getattr(theirs, name)}
        for expected in getattr(ours, name):
            assert torch.equal(found[expected.image_path].image, expected.image)
            if name == "test_data":
                assert torch.equal(found[expected.image_path].gt_mask, expected.gt_mask)


def test_a_data_set_that_reads_itself_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_deep(save_folder(tmp_path, ["1.png", "2.png", "3.png"]))
    datamodule = folder(tmp_path)
    dataset = datamodule.test_data
    dataset.__class__ = type("Own", (type(dataset),), {"__getitem__": lambda self, index: None})
    with caplog.at_level(logging.WARNING):
        read_as_ours(datamodule)
    assert datamodule.test_data is dataset
    assert "Own reads images itself" in caplog.text
