# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The whole preparation: what it writes, how it goes on after an interruption, and what it refuses."""

import hashlib
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from anomalib_mediclip.data import MedicalFolder
from anomalib_mediclip.io import file_of
from anomalib_mediclip.prepare import prepare
from anomalib_mediclip.prepare.archive import ArchiveError
from tests.conftest import REPOSITORY
from tests.helpers.volumes import SECRET, make_dicom, make_nifti
from tests.unit.data.small_datasets import save_image, save_mask
from tests.unit.data.test_chexpert import save_miniature
from tests.unit.prepare.small_sources import content_of, manifest_of, save_busi, zip_of


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    return save_busi(tmp_path / "Dataset_BUSI_with_GT")


def test_files_are_copied_unchanged_and_listed(busi: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    report = prepare(busi, target)
    manifest = manifest_of(target)
    assert list(manifest.columns) == ["file", "sha256", "label", "patient", "split", "mask"]
    assert len(manifest) == 11
    for source, row in manifest.iterrows():
        content = (busi / str(source)).read_bytes()
        assert (target / row["file"]).read_bytes() == content
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["file"] == f"{row['split']}/{row['label']}/{Path(str(source)).name}"
        masks = row["mask"].split("|") if row["mask"] else []
        assert all(
            (target / m).read_bytes() == (busi / Path(str(source)).parent / Path(m).name).read_bytes() for m in masks
        )
    assert manifest["mask"]["benign/benign (1).png"] == "masks/benign (1)_mask.png|masks/benign (1)_mask_1.png"
    assert report == json.loads((target / "report.json").read_text())
    assert report["counts"] == {
        "train normal": 4,
        "test normal": 4,
        "test abnormal": 3,
        "abnormal with masks": 3,
        "masks": 4,
        "patients": 0,
        "images without a patient": 11,
    }


def test_the_target_is_a_medical_folder(busi: Path, tmp_path: Path) -> None:
    prepare(busi, tmp_path / "target")
    datamodule = MedicalFolder(tmp_path / "target", k_shot=4)
    datamodule.setup()
    assert len(datamodule.test_data) == 7
    assert (datamodule.test_data.samples["mask_path"].map(len) > 0).sum() == 3


def test_a_folder_and_zip_files_of_it_give_the_same(busi: Path, tmp_path: Path) -> None:
    prepare(busi, tmp_path / "folder")
    expected = content_of(tmp_path / "folder")
    for name, with_top in (("packed", True), ("bare", False)):
        prepare(zip_of(busi, f"{name}.zip", with_top), tmp_path / name)
        assert content_of(tmp_path / name) == expected


def test_the_seed_and_the_fraction_decide_the_split(busi: Path, tmp_path: Path) -> None:
    splits = []
    for name, options in (("a", {}), ("b", {"seed": 1}), ("c", {"test_fraction": 0.25})):
        prepare(busi, tmp_path / name, **options)
        splits.append(manifest_of(tmp_path / name)["split"].tolist())
    assert splits[0] != splits[1]
    assert [split.count("train") for split in splits] == [4, 4, 6]


def test_copies_and_images_that_look_the_same_are_reported(busi: Path, tmp_path: Path) -> None:
    from PIL import Image

    with Image.open(busi / "normal/normal (1).png") as image:
        image.resize((96, 96), Image.Resampling.BICUBIC).save(busi / "benign/benign (3).png")
    save_mask(busi / "benign/benign (3)_mask.png")
    report = prepare(busi, tmp_path / "target", test_fraction=0)
    assert report["duplicates"] == [["test/abnormal/benign (2).png", "test/abnormal/malignant (1).png"]]
    assert report["contradictory"] == []
    (pair,) = report["similar"]
    assert {pair["first"], pair["second"]} == {"test/abnormal/benign (3).png", "train/normal/normal (1).png"}
    assert pair["splits"] == "train and test"
    page = (tmp_path / "target/report.md").read_text()
    assert "* test/abnormal/benign (2).png = test/abnormal/malignant (1).png" in page
    assert "### One is trained on, the other one is tested (1)" in page


def test_images_of_one_patient_are_expected_to_look_the_same(tmp_path: Path) -> None:
    for number in range(2):
        save_image(tmp_path / f"set/{number}.png", seed=1)
    (tmp_path / "set/1.png").write_bytes((tmp_path / "set/0.png").read_bytes() + b"0")  # other bytes, same picture
    similar = []
    for name, patients in (("same", "aa"), ("other", "ab"), ("unknown", ["", ""])):
        rows = [f"{number}.png,normal,{patient}" for number, patient in enumerate(patients)]
        (tmp_path / "labels.csv").write_text("\n".join(["file,label,patient", *rows]))
        report = prepare(tmp_path / "set", tmp_path / name, tmp_path / "labels.csv", test_fraction=0)
        similar.append([pair["distance"] for pair in report["similar"]])
    assert similar == [[], [0], [0]]


def test_a_copy_with_another_label_is_tested_and_reported(busi: Path, tmp_path: Path) -> None:
    (busi / "benign/benign (9).png").write_bytes((busi / "normal/normal (2).png").read_bytes())
    report = prepare(busi, tmp_path / "target", test_fraction=0)
    assert report["contradictory"] == [["test/abnormal/benign (9).png", "test/normal/normal (2).png"]]


KILLED = """
import os, signal, sys
from pathlib import Path
from anomalib_mediclip.prepare import copying, prepare
copied = 0
def die_in_the_middle(file, copy):
    global copied
    copied += 1
    if copied == int(sys.argv[3]):
        copy.write(file.read(10))
        copy.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return original(file, copy)
original, copying._copy = copying._copy, die_in_the_middle
prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_preparation_is_completed(busi: Path, tmp_path: Path) -> None:
    prepare(busi, tmp_path / "whole")
    target = tmp_path / "killed"
    for number, finished in ((6, 5), (4, 8)):  # killed twice
        arguments = [sys.executable, "-c", KILLED, str(busi), str(target), str(number)]
        result = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert result.returncode == -signal.SIGKILL, result.stderr
        left = content_of(target)
        assert "manifest.csv" not in left
        assert [len(left[name]) for name in left if "unfinished" in name] == [10]
        assert len(left) == finished + 1
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*.png") if "unfinished" not in path.name}
    prepare(zip_of(busi), target)
    assert content_of(target) == content_of(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_finished_preparation_may_be_repeated(busi: Path, tmp_path: Path) -> None:
    prepare(busi, tmp_path / "target")
    before = content_of(tmp_path / "target")
    prepare(busi, tmp_path / "target")
    assert content_of(tmp_path / "target") == before


@pytest.mark.parametrize("name", ["masks/benign (2)_mask.png", "test/abnormal/benign (2).png", "manifest.csv"])
def test_another_file_is_never_overwritten(busi: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "target" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="Nothing was changed") as error:
        prepare(busi, tmp_path / "target")
    assert str(path) in str(error.value)
    assert content_of(tmp_path / "target") == {name: b"mine"}


def test_files_of_another_preparation_are_not_mixed_in(busi: Path, tmp_path: Path) -> None:
    prepare(busi, tmp_path / "target")
    before = content_of(tmp_path / "target")
    with pytest.raises(FileExistsError, match=r"normal \(\d\)\.png"):
        prepare(busi, tmp_path / "target", seed=1)
    assert content_of(tmp_path / "target") == before


def test_a_target_in_the_source_and_a_file_as_target_are_refused(busi: Path, tmp_path: Path) -> None:
    for target in (busi, busi / "target"):
        with pytest.raises(ValueError, match="lies in the source"):
            prepare(busi, target)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file is a file"):
        prepare(busi, tmp_path / "file")


def test_a_second_process_is_refused(busi: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with FileLock(tmp_path / "target/.lock"), pytest.raises(FileExistsError, match="another process prepares"):
        prepare(busi, tmp_path / "target")


def test_a_full_disk_is_noticed_before_anything_is_copied(
    busi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shutil import _ntuple_diskusage

    monkeypatch.setattr("shutil.disk_usage", lambda path: _ntuple_diskusage(10, 0, 10))
    with pytest.raises(OSError, match="make room"):
        prepare(busi, tmp_path / "target")
    assert content_of(tmp_path / "target") == {}


@pytest.mark.parametrize("packed", [False, True])
def test_what_cannot_be_used_stops_or_is_left_out(
    busi: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, packed: bool
) -> None:
    (busi / "benign/benign (1).png").write_bytes(b"no image")
    (busi / "malignant/malignant (1)_mask.png").write_bytes((busi / "normal/normal (1).png").read_bytes()[:90])
    (busi / "normal/normal (3).png").write_bytes(b"")
    source = zip_of(busi) if packed else busi
    with pytest.raises(ValueError, match=r"(?s)3 of 11 images cannot be used.*Nothing was copied") as error:
        prepare(source, tmp_path / "target")
    below = source / busi.name if packed else source
    assert f"cannot read {below / 'benign/benign (1).png'}" in str(error.value)
    assert not (tmp_path / "target").exists()
    report = prepare(source, tmp_path / "target", on_error="skip")
    assert "3 of 11 images cannot be used" in caplog.text
    assert len(manifest_of(tmp_path / "target")) == 8
    faults = {name: reason for name, reason in report["unused"].items() if "cannot read" in reason}
    assert str(tmp_path) not in str(report)
    assert set(faults) == {"benign/benign (1).png", "malignant/malignant (1).png", "normal/normal (3).png"}


def test_a_name_that_means_a_mask_in_the_target_is_refused(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1_mask.png"):
        save_image(tmp_path / "set" / name)
    (tmp_path / "labels.csv").write_text("file,label\na/1.png,normal\nb/1_mask.png,normal\n")
    with pytest.raises(ValueError, match="would be taken for masks"):
        prepare(tmp_path / "set", tmp_path / "target", tmp_path / "labels.csv", test_fraction=0)


def test_patients_of_a_table_are_pseudonyms_and_on_one_side(tmp_path: Path) -> None:
    lines = ["file,label,patient"]
    for number in range(12):
        save_image(tmp_path / f"set/{number}.png", seed=number)
        lines.append(f"{number}.png,{'abnormal' if number == 11 else 'normal'},Doe {number // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    prepare(tmp_path / "set", tmp_path / "target", tmp_path / "labels.csv")
    manifest = manifest_of(tmp_path / "target")
    assert manifest.groupby("patient")["split"].nunique().tolist() == [1] * 6
    assert manifest["split"]["10.png"] == "test"  # its patient has the abnormal image
    assert all(b"Doe" not in content for content in content_of(tmp_path / "target").values())


def test_chexpert_keeps_patients_apart_and_names_apart(tmp_path: Path) -> None:
    prepare(zip_of(save_miniature(tmp_path / "CheXpert-v1.0-small")), tmp_path / "target", seed=3)
    manifest = manifest_of(tmp_path / "target")
    assert manifest["file"].is_unique
    row = manifest.loc["train/patient00101/study1/view1_frontal.jpg"]
    assert row["file"] == "test/abnormal/train_patient00101_study1_view1_frontal.jpg"
    assert manifest.groupby("patient")["split"].nunique().max() == 1
    assert manifest["split"]["train/patient00001/study1/view1_frontal.jpg"] == "test"  # fell ill later


def save_dicom(root: Path) -> Path:
    """Write DICOM files of four patients without endings, in folders that are named after them."""
    random = np.random.default_rng(0)
    for patient in range(4):
        for image in range(3):
            make_dicom(
                root / f"{'abnormal' if patient == 3 else 'normal'}/{SECRET}_{patient}/IM{image}",
                random.integers(0, 4000, (32, 32), dtype=np.uint16),
                PatientID=f"{SECRET}{patient}",
                PatientName=f"{SECRET}^{patient}",
            )
    (root / f"normal/{SECRET}_0/notes.txt").write_text("x")
    make_dicom(root / f"other/{SECRET.upper()}/IM9", np.zeros((8, 8), np.uint16))  # without a label
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_dicom_patients_are_kept_apart_and_seen_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, packed: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    source = save_dicom(tmp_path / "scans")
    report = prepare(zip_of(source) if packed else source, tmp_path / "target")
    manifest = manifest_of(tmp_path / "target").reset_index()
    assert report["counts"]["patients"] == 4
    assert manifest.groupby("patient")["split"].nunique().tolist() == [1] * 4
    assert manifest.groupby("patient").size().tolist() == [3] * 4
    assert (manifest["split"] == "train").any()
    original = {path.read_bytes() for path in source.rglob("IM*")}
    assert len(manifest) == 12
    written = content_of(tmp_path / "target")
    assert {written[name] for name in manifest["file"]} < original
    for name, content in written.items():
        assert SECRET.lower() not in name.lower()
        if content not in original:
            assert SECRET.lower().encode() not in content.lower(), name
    assert {Path(name).name for name in report["unused"]} == {"notes.txt", "IM9"}
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_nifti_volumes_are_copied_whole_with_their_masks(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("normal/a", "normal/b", "abnormal/c"):
        make_nifti(tmp_path / f"set/{name}.nii.gz", random.integers(0, 900, (24, 24, 6)).astype(np.int16))
    lesion = np.zeros((24, 24, 6), np.uint8)
    lesion[5:15, 5:15, 2:4] = 1
    make_nifti(tmp_path / "set/abnormal/c_mask.nii.gz", lesion)
    prepare(tmp_path / "set", tmp_path / "target")
    manifest = manifest_of(tmp_path / "target")
    assert manifest["mask"]["abnormal/c.nii.gz"] == "masks/c_mask.nii.gz"
    assert sorted(manifest["split"]) == ["test", "test", "train"]
    pool, test = MedicalFolder(tmp_path / "target").read_layout()
    assert len(pool) == 6
    assert {file_of(sample.image)[0].name for sample in test if sample.is_abnormal} == {"c.nii.gz"}


def test_wrong_options_and_damaged_archives_leave_nothing(busi: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test_fraction is 1"):
        prepare(busi, tmp_path / "target", test_fraction=1)
    damaged = zip_of(busi)
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(ArchiveError, match="cannot be read as a zip file"):
        prepare(damaged, tmp_path / "target")
    assert not (tmp_path / "target").exists()
