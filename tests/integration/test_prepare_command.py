# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib mediclip prepare``, as a user runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from anomalib_mediclip.prepare import prepare
from tests.conftest import REPOSITORY
from tests.unit.prepare.small_sources import content_of, manifest_of, save_busi


def anomalib(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("anomalib")), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )


def test_help_names_the_group_and_explains_its_command(tmp_path: Path) -> None:
    assert "mediclip" in anomalib("--help", folder=tmp_path).stdout
    explained = anomalib("mediclip", "prepare", "--help", folder=tmp_path).stdout
    for word in ("source target", "--labels", "--test_fraction", "--seed", "--on_error", "Folder or zip file of"):
        assert word in explained


@pytest.mark.slow
def test_an_archive_is_prepared_and_trained_on(tmp_path: Path) -> None:
    save_busi(tmp_path / "Dataset_BUSI_with_GT")
    shutil.make_archive(str(tmp_path / "busi"), "zip", tmp_path, "Dataset_BUSI_with_GT")
    result = anomalib("mediclip", "prepare", "busi.zip", "busi", folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "busi: 4 normal images to train on; test 4 normal, 3 abnormal, 3 with masks" in result.stdout
    assert "1 groups of copies" in result.stdout
    assert "reading: 100%" in result.stderr
    assert "experimental" not in result.stdout + result.stderr
    again = anomalib("mediclip", "prepare", "busi.zip", "busi", "--seed", 1, folder=tmp_path)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("error: busi holds files that this preparation would not write")
    model = ("--model", "MediCLIP", "--model.encoder", "timm/resnet18", "--model.weights", "null")
    model = (*model, "--model.image_size", "[64,64]", "--model.layers", "[3,4]", "--model.prompt", "prototype")
    data = ("--data", "MedicalFolder", "--data.root", "busi", "--data.k_shot", 4)
    trained = anomalib("train", *model, *data, "--trainer.max_epochs", 1, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert "pixel_AUROC" in trained.stdout


def test_a_mistake_ends_with_a_sentence(tmp_path: Path) -> None:
    result = anomalib("mediclip", "prepare", "nowhere", "target", folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: no file or folder nowhere")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_busi_as_a_folder_and_as_a_zip_file(real_data: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "busi"), "zip", real_data, "Dataset_BUSI_with_GT")
    prepare(real_data / "Dataset_BUSI_with_GT", tmp_path / "folder")
    result = anomalib("mediclip", "prepare", "busi.zip", "packed", folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert content_of(tmp_path / "folder") == content_of(tmp_path / "packed")
    manifest = manifest_of(tmp_path / "folder")
    assert manifest.groupby("label").size().to_dict() == {"abnormal": 647, "normal": 133}
    assert manifest["mask"].map(lambda cell: len(cell.split("|"))).value_counts().to_dict() == {1: 763, 2: 16, 3: 1}
    report = pd.read_json(tmp_path / "folder/report.json", typ="series")
    assert report["duplicates"] == [["test/abnormal/benign (433).png", "test/abnormal/malignant (145).png"]]
    similar = {frozenset(Path(pair[end]).stem for end in ("first", "second")) for pair in report["similar"]}
    assert frozenset(("normal (1)", "benign (269)")) in similar
    assert frozenset(("normal (34)", "benign (437)")) in similar


@pytest.mark.slow
def test_brain_mri_copies_are_in_the_report(real_data: Path, tmp_path: Path) -> None:
    report = prepare(real_data / "brain_tumor_dataset", tmp_path / "brain")
    assert len(report["duplicates"]) == 22
    manifest = manifest_of(tmp_path / "brain")
    assert manifest.groupby("sha256")["split"].nunique().max() == 1
