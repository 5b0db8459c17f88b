# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Slices as paths, kinds of files, and what the environment says about their display."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_mediclip.display import set_slice_plane, set_window
from anomalib_mediclip.io import (
    ImageFileError,
    content_of,
    file_of,
    is_slice,
    kind_of,
    read_header,
    read_image,
    search,
    slices_of,
)
from anomalib_mediclip.io import volumes as module
from tests.helpers.volumes import make_dicom, make_nifti

VOLUME = np.random.default_rng(0).integers(0, 1000, (6, 7, 8)).astype(np.int16)


class TestPaths:
    def test_a_number_below_a_file_is_a_slice(self, tmp_path: Path) -> None:
        path = make_nifti(tmp_path / "a.nii.gz", VOLUME)
        assert file_of(path / "0012") == (path, 12)
        assert file_of(str(path / "12345")) == (path, 12345)
        assert is_slice(path / "0000")
        for other in (path, path / "12", path / "0012.png", tmp_path / "0012"):
            assert file_of(other) == (other, None)

    def test_a_folder_that_is_called_like_a_volume_holds_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii.gz").mkdir()
        Image.new("L", (4, 4)).save(tmp_path / "a.nii.gz" / "0012", "PNG")
        assert not is_slice(tmp_path / "a.nii.gz" / "0012")
        assert search(tmp_path).images == [tmp_path / "a.nii.gz" / "0012"]

    def test_missing_files_and_slices(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no image file .*a\.nii/0003"):
            read_image(tmp_path / "a.nii" / "0003")
        path = make_nifti(tmp_path / "a.nii", VOLUME)
        for read in (read_image, read_header):
            with pytest.raises(ImageFileError, match=r"a\.nii/0008: there is no slice 8: a\.nii has 8, counted from 0"):
                read(path / "0008")
            with pytest.raises(ImageFileError, match=r"a\.nii: it is a volume of 8 slices"):
                read(path)


class TestKinds:
    def test_content_counts_and_no_name(self, tmp_path: Path) -> None:
        make_nifti(tmp_path / "1.nii", VOLUME).rename(tmp_path / "1.png")
        make_nifti(tmp_path / "2.nii.gz", VOLUME).rename(tmp_path / "2.jpg")
        make_dicom(tmp_path / "3.nii", VOLUME[0])
        Image.new("L", (4, 4)).save(tmp_path / "4.dcm", "PNG")
        whole = make_dicom(tmp_path / "5.dcm", VOLUME[0]).read_bytes()
        (tmp_path / "bare").write_bytes(whole[132:])
        names = ("1.png", "2.jpg", "3.nii", "4.dcm", "5.dcm", "bare")
        kinds = ["nifti", "nifti", "dicom", "picture", "dicom", "dicom"]
        assert [kind_of(tmp_path / name) for name in names] == kinds
        assert torch.equal(read_image(tmp_path / "bare"), read_image(tmp_path / "5.dcm"))
        assert read_image(tmp_path / "4.dcm").shape == (3, 4, 4)
        assert read_image(tmp_path / "2.jpg" / "0003").shape == (3, 7, 6)

    @pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"\x1f\x8bgarbage", b"text", b"%PDF-1.4", b"\0" * 600])
    def test_anything_else(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a").write_bytes(content)
        assert kind_of(tmp_path / "a") is None


class TestSearch:
    def test_a_folder_of_everything(self, tmp_path: Path) -> None:
        make_nifti(tmp_path / "1.nii.gz", VOLUME[:, :, :2])
        make_dicom(tmp_path / "2.dcm", np.stack([VOLUME[0]] * 3))
        make_dicom(tmp_path / "IM3", VOLUME[0])
        make_dicom(tmp_path / "1.2.840.4", VOLUME[0])
        Image.new("L", (4, 4)).save(tmp_path / "5.png")
        (tmp_path / "6.nii.gz").write_bytes(b"no volume")
        (tmp_path / "7.dcm").write_bytes(b"")
        (tmp_path / "notes.txt").write_text("none")
        found = search(tmp_path)
        assert [path.relative_to(tmp_path).as_posix() for path in found.images] == [
            *("1.2.840.4", "1.nii.gz/0000", "1.nii.gz/0001", "2.dcm/0000", "2.dcm/0001", "2.dcm/0002"),
            *("5.png", "6.nii.gz", "7.dcm", "IM3"),
        ]
        assert found.skipped == {".txt": 1}


class TestCache:
    def test_a_volume_is_opened_once_for_its_slices(self, tmp_path: Path) -> None:
        path = make_nifti(tmp_path / "a.nii.gz", VOLUME)
        module._volume.cache_clear()
        with ThreadPoolExecutor(8) as threads:
            images = list(threads.map(read_image, slices_of(path)))
        assert module._volume.cache_info().misses == 1
        assert all(torch.equal(image, read_image(one)) for image, one in zip(images, slices_of(path), strict=True))

    def test_a_file_that_is_written_anew_is_read_anew(self, tmp_path: Path) -> None:
        path = make_nifti(tmp_path / "a.nii", VOLUME)
        before = read_image(path / "0000")
        make_nifti(path, VOLUME[::-1].copy())
        assert torch.equal(read_image(path / "0000"), before.flip(2))

    def test_window_and_plane_may_change(self, tmp_path: Path) -> None:
        path = make_nifti(tmp_path / "a.nii", VOLUME)
        first = read_image(path / "0000")
        set_window("100,50")
        assert not torch.equal(read_image(path / "0000"), first)
        set_slice_plane("coronal")
        assert read_image(path / "0000").shape == (3, 8, 6)
        assert len(slices_of(path)) == 7

    def test_a_wrong_environment_is_no_fault_of_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_nifti(tmp_path / "a.nii", VOLUME)
        monkeypatch.setenv("ANOMALIB_MEDICLIP_SLICE_PLANE", "oblique")
        with pytest.raises(ImageFileError, match="SLICE_PLANE=oblique: give one of axial, coronal, sagittal"):
            read_image(path / "0000")
        monkeypatch.setenv("ANOMALIB_MEDICLIP_SLICE_PLANE", "axial")
        monkeypatch.setenv("ANOMALIB_MEDICLIP_WINDOW", "wide")
        with pytest.raises(ImageFileError, match="WINDOW wide: give a preset"):
            read_image(path / "0000")


def test_content_tells_slices_apart(tmp_path: Path) -> None:
    volume = VOLUME.copy()
    volume[:, :, 3] = volume[:, :, 5]
    first, second = make_nifti(tmp_path / "a.nii", volume), make_nifti(tmp_path / "b.nii.gz", volume)
    contents = [content_of(path) for path in slices_of(first)]
    assert contents == [content_of(path) for path in slices_of(second)]
    assert contents[3] == contents[5]
    assert len(set(contents)) == 7
    assert content_of(first) == first.read_bytes()
