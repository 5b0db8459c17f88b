# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Fingerprint of a data set: every change of its files changes it, and unchanged files are read once."""

import os
import shutil
from pathlib import Path

import pytest

from anomalib_mediclip.benchmark import fingerprint
from anomalib_mediclip.benchmark.fingerprint import CACHE, hash_data
from tests.unit.data.small_datasets import save_folder, save_industrial


@pytest.fixture
def root(tmp_path: Path, sample_data: Path) -> Path:
    shutil.copytree(sample_data, tmp_path / "data")
    return tmp_path / "data"


def fingerprint_of(root: Path) -> str:
    return hash_data({"class_path": "MedicalFolder", "init_args": {"root": str(root)}}, root.parent / "out")


@pytest.mark.parametrize("folder", ["train/normal", "test/normal", "test/abnormal", "masks"])
def test_other_contents_and_other_names_change_it(root: Path, folder: str) -> None:
    first = fingerprint_of(root)
    assert fingerprint_of(root) == first
    file = sorted((root / folder).rglob("*.png"))[0]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    changed = fingerprint_of(root)
    file.write_bytes(content)
    assert changed != first
    assert fingerprint_of(root) == first


def test_a_new_image_changes_it_and_another_place_does_not(root: Path, tmp_path: Path) -> None:
    first = fingerprint_of(root)
    shutil.copytree(root, tmp_path / "elsewhere")
    assert fingerprint_of(tmp_path / "elsewhere") == first
    image = next((root / "test" / "normal").glob("*.png"))
    shutil.copy(image, image.with_name("added.png"))
    assert fingerprint_of(root) != first


def test_files_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint_of(root)
    read: list[int] = []
    monkeypatch.setattr(fingerprint.hashlib, "file_digest", lambda *args: read.append(1))
    assert fingerprint_of(root) == first
    assert not read


def test_a_damaged_cache_is_computed_again(root: Path) -> None:
    first = fingerprint_of(root)
    for content in ("", "[1]", '{"a'):
        (root.parent / "out" / CACHE).write_text(content)
        assert fingerprint_of(root) == first


def test_a_file_that_was_touched_only_keeps_it(root: Path) -> None:
    first = fingerprint_of(root)
    os.utime(next((root / "test" / "normal").glob("*.png")), (1, 1))
    assert fingerprint_of(root) == first


def test_other_images_to_learn_from_change_it(tmp_path: Path) -> None:
    medical = {"class_path": "MedicalFolder", "init_args": {"root": str(save_folder(tmp_path / "medical", ["1.png"]))}}
    industrial = save_industrial(tmp_path / "mvtec", ["bottle"])
    auxiliary = {"class_path": "anomalib.data.MVTecAD", "init_args": {"root": str(industrial)}}
    both = {"class_path": "AuxiliaryData", "init_args": {"auxiliary": auxiliary, "medical": medical}}
    first = hash_data(both, tmp_path / "out")
    mask = sorted(industrial.rglob("*_mask.png"))[0]
    mask.write_bytes(mask.read_bytes() + b"0")
    assert hash_data(both, tmp_path / "out") != first
