# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""DICOM and NIfTI through the command: trained on, predicted, with rows and pictures of slices."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anomalib.cli import AnomalibCLI
from anomalib.data import Folder
from anomalib.engine import Engine

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.io import read_image
from tests.helpers.volumes import SECRET, make_dicom, make_nifti, make_series
from tests.integration.test_prediction import ARGUMENTS, MODEL, command, predict

RANDOM = np.random.default_rng(0)


def volume(slices: int = 5) -> np.ndarray:
    return RANDOM.integers(0, 1000, (slices, 40, 48)).astype(np.int16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder with volumes, and a checkpoint trained on its normal slices."""
    root = tmp_path_factory.mktemp("scans")
    make_nifti(root / "train/normal/a.nii.gz", volume().transpose(2, 1, 0))
    make_series(root / "test/normal/series", volume(), (1, 0, 0), (0, 1, 0))
    make_nifti(root / "test/abnormal/b.nii", volume().transpose(2, 1, 0))
    lesion = np.zeros((48, 40, 5), np.uint8)
    lesion[10:20, 10:20, 1:3] = 1
    make_nifti(root / "masks/b_seg.nii.gz", lesion)
    model = MediCLIP(**MODEL, weights=None)
    engine = Engine(default_root_dir=root / "results", accelerator="cpu", max_epochs=1, enable_progress_bar=False)
    engine.train(model, datamodule=MedicalFolder(root, k_shot=4))
    engine.trainer.save_checkpoint(root / "model.ckpt")
    return root, root / "model.ckpt"


def test_a_model_is_trained_and_tested_on_volumes(trained: tuple[Path, Path]) -> None:
    root, checkpoint = trained
    pictures = {path.relative_to(path.parents[2]).as_posix() for path in (root / "results").rglob("*.png")}
    assert {f"abnormal/b.nii/{index:04d}.png" for index in range(5)} <= pictures
    assert len(pictures) == 10
    assert MediCLIP.load_from_checkpoint(checkpoint).training_record["display"]["slice_plane"] == "axial"


def test_a_study_is_predicted_slice_by_slice(
    tmp_path: Path, trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study"
    make_nifti(study / "head.nii.gz", volume(3).transpose(2, 1, 0))
    series = make_series(study / "ct", volume(4), (1, 0, 0), (0, 1, 0))
    make_dicom(study / "cine", volume(2))
    (study / "broken.dcm").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1 of 10 images could not be read: .*broken\.dcm"):
        predict(tmp_path, study, trained[1], monkeypatch)
    (path,) = tmp_path.rglob("predictions.csv")
    table = pd.read_csv(path, keep_default_na=False)
    slices = [study / "cine/0000", study / "cine/0001", *series, *(study / f"head.nii.gz/{i:04d}" for i in range(3))]
    assert table["file"].tolist() == [str(name) for name in (study / "broken.dcm", *slices)]
    assert table["label"][0] == "unreadable"
    assert "named like DICOM or NIfTI" in table["reason"][0]
    assert set(table["label"][1:]) <= {"normal", "anomalous"}
    folder = path.parent / "images/study"
    pictures = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*.png"))
    assert pictures == sorted(
        [f"{name.relative_to(study).as_posix()}.png" for name in slices if "ct" not in name.parts]
        + [f"ct/{name.name}.png" for name in series]
    )


@pytest.mark.parametrize("name", ["head.nii.gz", "head.nii.gz/0001"])
def test_a_volume_or_a_slice_is_predicted_alone(
    tmp_path: Path, trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_nifti(tmp_path / "head.nii.gz", volume(3).transpose(2, 1, 0))
    predict(tmp_path, tmp_path / name, trained[1], monkeypatch)
    (path,) = tmp_path.rglob("predictions.csv")
    expected = ["0001"] if name.endswith("0001") else ["0000", "0001", "0002"]
    assert [Path(file).name for file in pd.read_csv(path)["file"]] == expected


@pytest.mark.slow
def test_window_and_plane_of_the_command(tmp_path: Path, trained: tuple[Path, Path]) -> None:
    make_nifti(tmp_path / "head.nii.gz", volume(3).transpose(2, 1, 0))
    common = ["predict", *ARGUMENTS, "--data", "head.nii.gz", "--ckpt_path", trained[1]]
    result = command(tmp_path, *common, "--window", "soft_tissue", "--slice_plane", "sagittal")
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.rglob("predictions.csv")
    assert len(pd.read_csv(path)) == 48
    assert "trained on DICOM and NIfTI in another window or plane" in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(("--window", "heart"), "give a preset (brain, lung"), (("--slice_plane", "oblique"), "oblique")],
)
def test_a_wrong_window_or_plane_ends_with_a_sentence(
    tmp_path: Path,
    trained: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: tuple[str, str],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        predict(tmp_path, trained[0] / "test", trained[1], monkeypatch, *wrong)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_no_name_of_a_patient_leaves_the_files(
    tmp_path: Path, trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    make_series(tmp_path / "study", volume(3), (1, 0, 0), (0, -1, 0))
    predict(tmp_path, tmp_path / "study", trained[1], monkeypatch)
    written = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(written) >= 5
    for path in written:
        assert SECRET not in str(path)
        assert SECRET.encode() not in path.read_bytes()
    assert SECRET not in caplog.text


def test_folder_of_anomalib_reads_dicom(tmp_path: Path) -> None:
    pixels = [image.astype(np.uint16) + 3000 for image in volume(3)]
    paths = [make_dicom(tmp_path / f"{kind}/{index}.dcm", image) for kind in "ab" for index, image in enumerate(pixels)]
    datamodule = Folder(
        "x", tmp_path / "a", tmp_path, tmp_path / "b", extensions=(".dcm",), num_workers=0, test_split_mode="from_dir"
    )
    model = MediCLIP(**MODEL, weights=None, visualizer=False)
    engine = Engine(default_root_dir=tmp_path / "results", accelerator="cpu", max_epochs=1, enable_progress_bar=False)
    engine.fit(model, datamodule=datamodule)
    item = datamodule.test_data[0]
    assert Path(item.image_path) in paths
    assert item.image.shape[0] == 3
    assert 0 < read_image(item.image_path).mean() < 1


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        AnomalibCLI(args=["predict", "--help"])
    shown = capsys.readouterr().out
    assert "--window" in shown
    assert "--slice_plane" in shown
    assert "brain, lung" in shown
