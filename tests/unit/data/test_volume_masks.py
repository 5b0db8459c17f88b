# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Volumes in folders of one's own, with masks of the same voxels."""

import logging
from pathlib import Path

import numpy as np
import pytest

from anomalib_mediclip import MedicalFolder
from anomalib_mediclip.io import ImageFileError
from tests.helpers.volumes import make_dicom, make_nifti

RANDOM = np.random.default_rng(0)
LESION = (slice(4, 9), slice(5, 8), slice(2, 4))


def volume() -> np.ndarray:
    return RANDOM.integers(0, 1000, (16, 20, 6)).astype(np.int16)


def mask() -> np.ndarray:
    lesion = np.zeros((16, 20, 6), np.uint8)
    lesion[LESION] = 1
    return lesion


def save_volumes(root: Path) -> Path:
    make_nifti(root / "train/normal/a.nii.gz", volume())
    make_nifti(root / "test/normal/b.nii.gz", volume())
    make_nifti(root / "test/abnormal/c.nii.gz", volume())
    return root


def set_up(root: Path) -> MedicalFolder:
    datamodule = MedicalFolder(root, k_shot=3)
    datamodule.setup()
    return datamodule


@pytest.mark.parametrize("place", ["masks/c_mask.nii.gz", "masks/c.nii", "test/abnormal/c_mask.nii.gz"])
def test_slices_are_abnormal_where_the_mask_shows_a_lesion(tmp_path: Path, place: str) -> None:
    make_nifti(save_volumes(tmp_path) / place, mask())
    datamodule = MedicalFolder(tmp_path, k_shot=3, mask_dir="test/abnormal" if "abnormal" in place else "masks")
    datamodule.setup()
    assert len(datamodule.support_set) == 3
    assert {path.parent for path in datamodule.support_set} == {tmp_path / "train/normal/a.nii.gz"}
    items = [datamodule.test_data[index] for index in range(len(datamodule.test_data))]
    abnormal = [item for item in items if item.gt_label]
    assert len(items) == 12
    assert [Path(item.image_path).name for item in abnormal] == ["0002", "0003"]
    for item in abnormal:
        expected = mask()[::-1, ::-1, int(Path(item.image_path).name)].T.astype(bool)
        assert np.array_equal(item.gt_mask.numpy(), expected)
    assert not any(item.gt_mask.any() for item in items if not item.gt_label)


def test_a_volume_without_a_mask_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        datamodule = set_up(save_volumes(tmp_path))
    assert "1 volumes of abnormal images have no mask" in caplog.text
    assert str(tmp_path / "test/abnormal/c.nii.gz") in caplog.text
    assert int(datamodule.test_data.samples["label_index"].sum()) == 6


def test_a_mask_on_other_voxels_is_refused(tmp_path: Path) -> None:
    make_nifti(save_volumes(tmp_path) / "masks/c.nii.gz", mask(), np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(ImageFileError, match=r"mask .*c\.nii\.gz does not lie on the voxels of"):
        set_up(tmp_path)


def test_slices_in_both_sets_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = save_volumes(tmp_path)
    (root / "test/normal/b.nii.gz").write_bytes((root / "train/normal/a.nii.gz").read_bytes())
    with caplog.at_level(logging.WARNING):
        datamodule = set_up(root)
    trained = sorted(datamodule.support_set)
    assert f"{trained[0]} = {root / 'test/normal/b.nii.gz' / trained[0].name}" in caplog.text


def test_the_support_set_is_recognised_by_its_slices(tmp_path: Path) -> None:
    datamodule = set_up(save_volumes(tmp_path))
    before = datamodule.describe()
    assert set_up(tmp_path).describe() == before
    make_nifti(tmp_path / "train/normal/a.nii.gz", volume())
    assert set_up(tmp_path).describe()["support_set_hash"] != before["support_set_hash"]


def test_dicom_and_damaged_files(tmp_path: Path) -> None:
    for index in range(4):
        make_dicom(tmp_path / f"train/normal/IM{index}", volume()[..., 0])
    (tmp_path / "train/normal/4.dcm").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"4\.dcm: it is named like DICOM or NIfTI, and is neither"):
        MedicalFolder(tmp_path, k_shot=None).setup()
    datamodule = MedicalFolder(tmp_path, k_shot=None, on_error="skip")
    datamodule.setup()
    assert [path.name for path in datamodule.support_set] == ["IM0", "IM1", "IM2", "IM3"]
