# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Masks and maps as DICOM: read back value by value, at their place, and refused without a word about the patient."""

import errno
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.data import get_testdata_file

from anomalib_mediclip.io import dicom_results
from anomalib_mediclip.io.dicom_results import (
    Algorithm,
    NotWrittenError,
    read_sources,
    write_parametric_map,
    write_segmentation,
)
from tests.helpers.scans import ORIENTATIONS, position_in_patient, write_multi_frame, write_series
from tests.helpers.volumes import SECRET, make_dicom

ALGORITHM = Algorithm("MediCLIP", "0123")
SHAPE = (5, 24, 16)


def random_maps(seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).random(SHAPE, np.float32)


def volume() -> npt.NDArray[np.int16]:
    return np.zeros(SHAPE, np.int16)


def read_map(path: Path) -> tuple[pydicom.Dataset, npt.NDArray[np.float32]]:
    """Return a Parametric Map, and its values in the order of the frames."""
    written = pydicom.dcmread(path)
    shape = int(written.NumberOfFrames), written.Rows, written.Columns
    return written, np.frombuffer(written.FloatPixelData, np.float32).reshape(shape)


def frames_of(written: pydicom.Dataset, sources: list[pydicom.Dataset]) -> list[int]:
    """Return the frame of a result that lies on each slice of the source; highdicom has an order of its own."""
    slices = [(source, 0) for source in sources] if len(sources) > 1 else [(sources[0], place) for place in range(5)]
    found = []
    for source, place in slices:
        first = position_in_patient(source, place, 0, 0)
        distances = [np.linalg.norm(position_in_patient(written, frame, 0, 0) - first) for frame in range(5)]
        found.append(int(np.argmin(distances)))
    assert sorted(found) == list(range(5))
    return found


def test_a_map_and_a_mask_are_read_back_as_they_were(tmp_path: Path) -> None:
    sources = read_sources(write_series(tmp_path / "ct", volume(), ORIENTATIONS["oblique"]))
    maps = random_maps()
    write_parametric_map(tmp_path / "map.dcm", sources, list(maps), ALGORITHM)
    written, values = read_map(tmp_path / "map.dcm")
    np.testing.assert_array_equal(values[frames_of(written, sources)], maps)
    mask = (maps > 0.5).astype(np.uint8)
    write_segmentation(tmp_path / "mask.dcm", sources, mask, ALGORITHM)
    written = pydicom.dcmread(tmp_path / "mask.dcm")
    np.testing.assert_array_equal(written.pixel_array[frames_of(written, sources)], mask)
    identifiers = [source.SOPInstanceUID for source in sources]
    by_source = hd.seg.segread(tmp_path / "mask.dcm").get_pixels_by_source_instance(identifiers)
    np.testing.assert_array_equal(by_source[..., 0], mask)
    assert (written.ManufacturerModelName, written.DeviceSerialNumber) == ("MediCLIP", "0123")
    assert written.SeriesNumber == 301


def test_a_multi_frame_file_gets_a_map_and_a_mask(tmp_path: Path) -> None:
    sources = read_sources([write_multi_frame(tmp_path / "ct.dcm", volume(), ORIENTATIONS["oblique"])])
    mask = np.zeros(SHAPE, np.uint8)
    mask[3, 4:9, 2:6] = 1
    write_parametric_map(tmp_path / "map.dcm", sources, list(mask.astype(np.float32)), ALGORITHM)
    write_segmentation(tmp_path / "mask.dcm", sources, mask, ALGORITHM)
    written, values = read_map(tmp_path / "map.dcm")
    frames = frames_of(written, sources)
    np.testing.assert_array_equal(values[frames], mask)
    expected = position_in_patient(sources[0], 3, 4, 2)
    np.testing.assert_allclose(position_in_patient(written, frames[3], 4, 2), expected, atol=1e-4)
    np.testing.assert_allclose(position_in_patient(hd.seg.segread(tmp_path / "mask.dcm"), 0, 4, 2), expected, atol=1e-4)


@pytest.mark.parametrize("several_files", [True, False])
def test_a_large_map_has_larger_pixels_over_the_same_area(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several_files: bool
) -> None:
    monkeypatch.setattr(dicom_results, "LARGEST_MAP", 5 * 12 * 8)
    orientation = ORIENTATIONS["oblique"]
    if several_files:
        sources = read_sources(write_series(tmp_path / "ct", volume(), orientation))
    else:
        sources = read_sources([write_multi_frame(tmp_path / "ct.dcm", volume(), orientation)])
    write_parametric_map(tmp_path / "map.dcm", sources, list(random_maps()), ALGORITHM)
    written = pydicom.dcmread(tmp_path / "map.dcm")
    assert (written.NumberOfFrames, written.Rows, written.Columns) == (5, 12, 8)
    for frame in (0, 4):
        source, place = (sources[frame], 0) if several_files else (sources[0], frame)
        on_it = frames_of(written, sources)[frame]
        for corner, outer in (((-0.5, -0.5), (-0.5, -0.5)), ((11.5, 7.5), (23.5, 15.5))):
            expected = position_in_patient(source, place, *outer)
            np.testing.assert_allclose(position_in_patient(written, on_it, *corner), expected, atol=1e-4)


def test_a_map_of_another_size_is_resized_over_the_whole_slice(tmp_path: Path) -> None:
    sources = read_sources(write_series(tmp_path / "ct", volume(), ORIENTATIONS["axial"]))
    write_parametric_map(tmp_path / "map.dcm", sources, [np.full((7, 9), 0.25, np.float32)] * 5, ALGORITHM)
    np.testing.assert_array_equal(read_map(tmp_path / "map.dcm")[1], np.full(SHAPE, 0.25, np.float32))


def test_a_map_of_a_volume_is_never_whole_in_memory(tmp_path: Path) -> None:
    sources = read_sources(write_series(tmp_path / "ct", np.zeros((40, 256, 256), np.int16), ORIENTATIONS["oblique"]))
    maps = [np.full((64, 64), place / 40, np.float32) for place in range(40)]
    write_parametric_map(tmp_path / "first.dcm", sources, maps, ALGORITHM)  # highdicom reads its tables
    tracemalloc.start()
    write_parametric_map(tmp_path / "map.dcm", sources, maps, ALGORITHM)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 256 * 256 * 4 / 4
    assert (tmp_path / "map.dcm").stat().st_size > 40 * 256 * 256 * 4


def test_what_cannot_be_written_is_said_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(match: str, write: object, paths: list[Path], values: npt.NDArray[np.generic]) -> None:
        with warnings.catch_warnings(action="error"), pytest.raises(NotWrittenError, match=match) as caught:
            write(tmp_path / "result.dcm", read_sources(paths), values, ALGORITHM)  # type: ignore[operator]
        assert SECRET not in str(caught.value)
        assert not list(tmp_path.glob("*result*"))

    ct = write_series(tmp_path / "ct", volume(), ORIENTATIONS["axial"])
    ones = np.ones(SHAPE, np.uint8)
    refused("mask is empty", write_segmentation, ct, np.zeros(SHAPE, np.uint8))
    cine = Path(get_testdata_file("examples_ybr_color.dcm", download=False))
    refused(
        "several frames without a frame of reference", write_segmentation, [cine], np.ones((30, 240, 320), np.uint8)
    )
    refused("no frame of reference", write_parametric_map, [cine], np.ones((30, 240, 320), np.float32))
    bare = make_dicom(tmp_path / "bare", volume()[0].astype(np.uint16), StudyInstanceUID="")
    refused("bare lacks StudyInstanceUID", write_segmentation, [bare], ones[:1])
    stray = make_dicom(tmp_path / "stray", volume()[0].astype(np.uint16), SpecificCharacterSet=SECRET)
    refused(r"lack what the standard asks for \(\w+ in \w+.py, line \d+\)", write_segmentation, [stray], ones[:1])

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    refused(r"No space left on device\): .* TMPDIR", write_parametric_map, ct, ones.astype(np.float32))
    monkeypatch.setattr(dicom_results, "find_spec", lambda name: None)
    refused("pip install 'anomalib-mediclip", write_segmentation, ct, ones)
