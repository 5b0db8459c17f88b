# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Results of volumes: a bright ball is in map and mask where it is in the source, and nobody is named."""

import itertools
import json
import logging
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pydicom
import pytest
from anomalib.engine import Engine
from lightning import Callback, Trainer
from PIL import Image
from pydicom.data import get_testdata_file

from anomalib_mediclip.display import PLANES, set_slice_plane
from anomalib_mediclip.io import dicom_results
from tests.helpers.brightness import Brightness
from tests.helpers.scans import ORIENTATIONS, position_in_patient, write_multi_frame, write_series
from tests.helpers.volumes import SECRET

SHAPE = (11, 44, 36)  # slices, rows, columns


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have even a small volume written in several pieces."""
    monkeypatch.setattr("anomalib_mediclip.prediction.volume_results.SLAB", 3 * 44 * 36)


def predict(root: Path, data: Path, model: Brightness | None = None, **trainer: Any) -> Path:
    """Predict by brightness, and return the folder of the run."""
    engine = Engine(default_root_dir=root, accelerator="cpu", devices=1, logger=False, **trainer)
    engine.predict(model or Brightness(), data_path=data, return_predictions=False)
    return Path(engine.trainer.default_root_dir)


def with_ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float = 4) -> npt.NDArray[np.int16]:
    """Return noise around 0 HU, and a ball of 300 HU."""
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - np.array(centre), axis=-1)
    noise = np.random.default_rng(0).normal(0, 3, shape)
    return np.where(distance <= radius, 300, noise).astype(np.int16)


def centre_of_mass(mask: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.argwhere(mask).mean(axis=0)


def affines() -> list[npt.NDArray[np.float64]]:
    """Return a turned affine for each order of the axes, with one of them negative."""
    angle = np.deg2rad(15)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    found = []
    for order in itertools.permutations(range(3)):
        axes = np.zeros((3, 3))
        for axis, direction in enumerate(order):
            axes[direction, axis] = (1.1, -0.9, 2.0)[axis]
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn @ axes, (-30, 12, 40)
        found.append(affine)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("plane", PLANES)
def test_a_ball_in_an_oblique_nifti_is_at_its_place_in_map_and_mask(tmp_path: Path, plane: str) -> None:
    set_slice_plane(plane)
    centre = (20, 31, 12)
    volume = with_ball((36, 44, 19), centre)
    (tmp_path / "scans").mkdir()
    for index, affine in enumerate(affines()):
        image = nib.Nifti1Image(volume, affine)
        image.set_sform(affine, code=2)
        image.set_qform(affine, code=1)
        image.header["descrip"] = SECRET.encode()
        nib.save(image, tmp_path / "scans" / f"{index}.nii.gz")
    run = predict(tmp_path / "results", tmp_path / "scans")
    for index, affine in enumerate(affines()):
        folder = run / "volumes" / "scans" / f"{index}.nii.gz"
        source = nib.load(tmp_path / "scans" / f"{index}.nii.gz")
        anomaly_map, mask = nib.load(folder / "anomaly_map.nii.gz"), nib.load(folder / "pred_mask.nii.gz")
        for result, dtype in ((anomaly_map, np.float32), (mask, np.uint8)):
            assert result.shape == source.shape
            np.testing.assert_array_equal(result.affine, source.affine)
            assert (result.header["qform_code"], result.header["sform_code"]) == (1, 2)
            np.testing.assert_array_equal(result.header.get_zooms(), source.header.get_zooms())
            assert result.get_data_dtype() == dtype
            assert SECRET.encode() not in result.header.binaryblock
        values = anomaly_map.get_fdata()
        assert volume[np.unravel_index(values.argmax(), values.shape)] == 300
        inside = np.asarray(mask.dataobj) > 0
        np.testing.assert_array_equal(inside, values > 0.5)
        place, expected = (nib.affines.apply_affine(affine, point) for point in (centre_of_mass(inside), centre))
        np.testing.assert_allclose(place, expected, atol=0.5)  # mm
        assert 0.7 < inside.sum() / (volume == 300).sum() < 1.4


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Path]]]:
    """Return a folder of six series, one of each orientation, and their files in order."""
    root = tmp_path_factory.mktemp("dicom") / "scans"
    volume = with_ball(SHAPE, (6, 30, 12))
    return root, {name: write_series(root / name, volume, cosines) for name, cosines in ORIENTATIONS.items()}


@pytest.fixture(scope="module")
def dicom_run(series: tuple[Path, dict[str, list[Path]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predict(tmp_path_factory.mktemp("results"), series[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_ball_in_a_dicom_series_is_at_its_place_in_map_and_segmentation(
    series: tuple[Path, dict[str, list[Path]]], dicom_run: Path, name: str
) -> None:
    paths = series[1][name]
    sources = [pydicom.dcmread(path) for path in paths]
    expected = position_in_patient(sources[6], 0, 30, 12)
    folder = dicom_run / "volumes" / "scans" / name
    anomaly_map = pydicom.dcmread(folder / "anomaly_map.dcm")
    segmentation = hd.seg.segread(folder / "pred_mask.dcm")
    values = np.frombuffer(anomaly_map.FloatPixelData, np.float32).reshape(SHAPE)
    for result, inside in ((anomaly_map, values > 0.5), (segmentation, segmentation.pixel_array > 0)):
        assert result.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
        assert result.StudyInstanceUID == sources[0].StudyInstanceUID
        assert result.SeriesInstanceUID != sources[0].SeriesInstanceUID
        assert "not for diagnostic use" in result.SeriesDescription
        assert "not for diagnostic use" in result.ContentDescription
        places = [position_in_patient(result, *point) for point in np.argwhere(inside)]
        np.testing.assert_allclose(np.mean(places, axis=0), expected, atol=0.5)  # mm
    frame, row, column = np.unravel_index(values.argmax(), values.shape)
    place = position_in_patient(anomaly_map, frame, row, column)
    assert np.linalg.norm(place - expected) <= 4 * 2.0  # the radius, along the widest distance of voxels
    referenced = {
        item.ReferencedSOPInstanceUID for item in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {source.SOPInstanceUID for source in sources}


@pytest.mark.slow
def test_highdicom_lays_the_segmentation_on_the_source(
    series: tuple[Path, dict[str, list[Path]]], dicom_run: Path
) -> None:
    sources = [pydicom.dcmread(path) for path in series[1]["oblique"]]
    segmentation = hd.seg.segread(dicom_run / "volumes" / "scans" / "oblique" / "pred_mask.dcm")
    mask = segmentation.get_pixels_by_source_instance(
        [source.SOPInstanceUID for source in sources], assert_missing_frames_are_empty=True
    )[..., 0]
    assert mask.shape == SHAPE
    np.testing.assert_allclose(centre_of_mass(mask), (6, 30, 12), atol=0.3)
    assert segmentation.get_segment_description(1).algorithm_type.value == "AUTOMATIC"


@pytest.mark.slow
@pytest.mark.skipif(which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
@pytest.mark.parametrize("file", ["anomaly_map.dcm", "pred_mask.dcm"])
def test_results_are_valid_dicom(dicom_run: Path, file: str) -> None:
    for path in dicom_run.rglob(file):
        found = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        assert [line for line in found.stderr.splitlines() if line.startswith("Error")] == []


@pytest.mark.slow
def test_slices_have_a_table_and_the_highest_one_a_picture(
    series: tuple[Path, dict[str, list[Path]]], dicom_run: Path
) -> None:
    table = pd.read_csv(dicom_run / "volumes" / "slices.csv")
    assert table.columns.tolist() == ["volume", "slice", "score", "label", "file"]
    predictions = pd.read_csv(dicom_run / "predictions.csv").set_index("file")
    assert len(table) == len(predictions) == len(ORIENTATIONS) * SHAPE[0]
    for name, paths in series[1].items():
        rows = table[table["volume"] == f"scans/{name}"]
        assert rows["slice"].tolist() == list(range(SHAPE[0]))
        assert rows["file"].tolist() == [str(path) for path in paths]
        assert rows["score"].tolist() == predictions.loc[rows["file"], "score"].tolist()
        assert (rows["label"] == "anomalous").tolist() == [abs(place - 6) <= 4 for place in range(SHAPE[0])]
        assert Image.open(dicom_run / "volumes" / "scans" / name / "highest_slice.png").width > 500


@pytest.mark.slow
def test_patients_are_named_in_dicom_results_only(
    tmp_path: Path,
    series: tuple[Path, dict[str, list[Path]]],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "scans").mkdir()
    for path in series[1]["oblique"]:
        hostile = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            hostile.PatientName = SECRET  # without a caret, which highdicom would warn about and print
            hostile.PatientBirthDate = hostile.StudyDate = hostile.PatientSex = hostile.PatientAge = SECRET
            hostile.save_as(tmp_path / "scans" / path.name)
    run = predict(tmp_path / "results", tmp_path / "scans", Brightness(visualizer=True))
    output = capfd.readouterr()
    assert SECRET not in caplog.text + output.out + output.err + "".join(str(one.message) for one in recwarn)
    written = [path for path in run.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} == {".dcm", ".csv", ".json", ".png", ".html", ".jpg", ".svg"}
    assert {path.name for path in written if SECRET.encode() in path.read_bytes()} == {
        "anomaly_map.dcm",
        "pred_mask.dcm",
    }
    assert not [path for path in run.rglob("*") if SECRET in path.name]
    assert pydicom.dcmread(run / "volumes" / "scans" / "pred_mask.dcm").PatientID == f"{SECRET}-ID"


def test_a_multi_frame_file_gets_results_of_its_own(tmp_path: Path) -> None:
    path = write_multi_frame(
        tmp_path / "scans" / "ct.dcm", with_ball((5, 24, 20), (3, 15, 6), 2), ORIENTATIONS["oblique"]
    )
    run = predict(tmp_path / "results", tmp_path / "scans")
    folder = run / "volumes" / "scans" / "ct.dcm"
    assert {file.name for file in folder.iterdir()} == {"anomaly_map.dcm", "pred_mask.dcm", "highest_slice.png"}
    segmentation = pydicom.dcmread(folder / "pred_mask.dcm")
    places = [position_in_patient(segmentation, *point) for point in np.argwhere(segmentation.pixel_array)]
    expected = position_in_patient(pydicom.dcmread(path), 3, 15, 6)
    np.testing.assert_allclose(np.mean(places, axis=0), expected, atol=1.0)  # mm; the outer slices are cut off
    assert pd.read_csv(run / "volumes" / "slices.csv")["file"].tolist() == [str(path / f"000{i}") for i in range(5)]


def test_one_image_with_a_position_gets_both_results(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "scans", with_ball((1, 24, 20), (0, 15, 6)), ORIENTATIONS["axial"])
    run = predict(tmp_path / "results", tmp_path / "scans")
    folder = run / "volumes" / "scans" / paths[0].name
    assert {file.name for file in folder.iterdir()} == {"anomaly_map.dcm", "pred_mask.dcm"}
    np.testing.assert_allclose(centre_of_mass(hd.seg.segread(folder / "pred_mask.dcm").pixel_array), (15, 6), atol=0.3)


def test_an_image_without_a_frame_of_reference_gets_a_segmentation_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source = get_testdata_file("examples_rgb_color.dcm", download=False)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "us.dcm").write_bytes(Path(source).read_bytes())
    run = predict(tmp_path / "results", tmp_path / "scans")
    results = run / "volumes" / "scans" / "us.dcm"
    assert [path.name for path in results.iterdir()] == ["pred_mask.dcm"]
    segmentation = hd.seg.segread(results / "pred_mask.dcm")
    assert segmentation.pixel_array.shape == pydicom.dcmread(source).pixel_array.shape[:2]
    assert "Parametric Map: the images have no frame of reference" in caplog.text
    assert not (run / "volumes" / "slices.csv").exists()


def test_an_empty_mask_gets_no_segmentation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write_series(tmp_path / "scans", np.full((3, 20, 20), -100, np.int16), ORIENTATIONS["axial"])
    run = predict(tmp_path / "results", tmp_path / "scans")
    assert sorted(path.name for path in (run / "volumes" / "scans").iterdir()) == [
        "anomaly_map.dcm",
        "highest_slice.png",
    ]
    assert "Not written for 1 volumes or DICOM images: Segmentation: the predicted mask is empty" in caplog.text


def test_without_highdicom_all_but_the_dicom_results_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dicom_results, "find_spec", lambda name: None)
    write_series(tmp_path / "scans", with_ball((5, 20, 20), (2, 9, 9)), ORIENTATIONS["axial"])
    run = predict(tmp_path / "results", tmp_path / "scans")
    assert "highdicom, which is not installed: pip install 'anomalib-mediclip[dicom]'" in caplog.text
    assert len(pd.read_csv(run / "predictions.csv")) == 5
    assert {path.name for path in run.rglob("*") if path.is_file()} == {
        "predictions.csv", "run.json", "slices.csv", "highest_slice.png",
    }  # fmt: skip


def test_a_series_with_a_damaged_slice_gets_results_of_the_others(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "scans", with_ball((5, 20, 20), (2, 9, 9), 1), ORIENTATIONS["axial"])
    paths[4].write_bytes(paths[4].read_bytes()[:-200])
    with pytest.raises(ValueError, match="1 of 5 images could not be read"):
        predict(tmp_path / "results", tmp_path / "scans")
    (run,) = (tmp_path / "results").rglob("volumes")
    assert pydicom.dcmread(run / "scans" / "anomaly_map.dcm").NumberOfFrames == 4
    assert pd.read_csv(run / "slices.csv")["label"].tolist() == ["normal", *["anomalous"] * 3, "unreadable"]
    assert json.loads((run.parent / "run.json").read_text())["unreadable"] == 1


def test_files_of_two_series_may_alternate_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number, centre in enumerate(((1, 5, 5), (3, 14, 14))):
        for path in write_series(tmp_path / str(number), with_ball((5, 20, 20), centre, 2), ORIENTATIONS["axial"]):
            path.rename(tmp_path / "scans" / f"{path.name}_{number}")
    run = predict(tmp_path / "results", tmp_path / "scans")
    for number, row in ((1, 5), (2, 14)):
        segmentation = hd.seg.segread(run / "volumes" / "scans" / f"series~{number}" / "pred_mask.dcm")
        assert centre_of_mass(segmentation.pixel_array > 0)[-1] == pytest.approx(row, abs=0.3)


def test_a_cropping_pre_processor_gets_no_volumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import CenterCrop

    nib.save(nib.Nifti1Image(with_ball((12, 12, 3), (5, 5, 1)), np.eye(4)), tmp_path / "scan.nii")
    model = Brightness()
    model.pre_processor = PreProcessor(CenterCrop((8, 8)))
    run = predict(tmp_path / "results", tmp_path / "scan.nii", model)
    assert "the pre-processor does more than resize" in caplog.text
    assert not (run / "volumes").exists()
    assert len(pd.read_csv(run / "predictions.csv")) == 3


def test_one_slice_of_a_volume_leaves_the_others_unknown(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(with_ball((12, 12, 3), (5, 5, 1)), np.eye(4)), tmp_path / "scan.nii")
    run = predict(tmp_path / "results", tmp_path / "scan.nii" / "0001")
    (path,) = run.rglob("anomaly_map.nii.gz")
    known = np.isfinite(nib.load(path).get_fdata()).all(axis=(0, 1))
    assert known.tolist() == [False, True, False]


def test_pictures_get_no_volumes(tmp_path: Path, sample_data: Path) -> None:
    run = predict(tmp_path, sample_data / "test")
    assert {path.name for path in run.iterdir()} >= {"predictions.csv", "run.json"}
    assert not (run / "volumes").exists()


class Counts(Callback):
    """Notes what the bar shows before each batch, and at the end."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, float]] = []

    def on_predict_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        self.on_predict_end(trainer)

    def on_predict_end(self, trainer: Trainer, *arguments: Any) -> None:
        task = trainer.progress_bar_callback.progress.tasks[-1]
        self.shown.append((task.completed, task.total))


def test_the_bar_counts_slices(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", with_ball(SHAPE, (5, 20, 20)), ORIENTATIONS["axial"])
    model, counts = Brightness(), Counts()
    model.prediction_path = tmp_path / "ct"  # as the command sets it
    engine = Engine(default_root_dir=tmp_path / "results", accelerator="cpu", logger=False, callbacks=[counts])
    engine.predict(model, return_predictions=False)
    assert counts.shown == [(0, 11), (8, 11), (11, 11)]


def test_the_bar_counts_each_of_several_loaders(tmp_path: Path) -> None:
    for name, slices in (("long", 3), ("short", 2)):
        write_series(tmp_path / name, with_ball((slices, 20, 20), (1, 9, 9)), ORIENTATIONS["axial"])
    model, counts = Brightness(), Counts()
    loaders = [model.image_loader(tmp_path / name) for name in ("long", "short")]
    engine = Engine(default_root_dir=tmp_path / "results", accelerator="cpu", logger=False, callbacks=[counts])
    engine.predict(model, dataloaders=loaders, return_predictions=False)
    assert counts.shown == [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2), (2, 2)]
