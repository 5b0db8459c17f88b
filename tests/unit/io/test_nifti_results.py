# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""NIfTI results have the geometry of their source, to the bit, and nothing else of it."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anomalib_mediclip.io.nifti_results import write_like
from tests.helpers.volumes import SECRET

AFFINE = np.array([[0.9, 0.1, 0, -7], [-0.1, -1.2, 0.3, 5], [0, 0.4, 2.5, 3], [0, 0, 0, 1]])


def write_source(
    path: Path, shape: tuple[int, ...], kind: Any = nib.Nifti1Image, codes: tuple[int, int] = (1, 4)
) -> Any:
    image = kind(np.zeros(shape, np.int16), AFFINE)
    image.set_qform(AFFINE, codes[0], strip_shears=True)
    image.set_sform(AFFINE, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    for name in ("descrip", "aux_file"):
        image.header[name] = SECRET.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET.encode()))
    nib.save(image, path)
    return nib.load(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 4), (0, 2), (3, 0), (0, 0)])
def test_geometry_is_that_of_the_source_and_names_are_left_behind(
    tmp_path: Path, kind: Any, codes: tuple[int, int]
) -> None:
    source = write_source(tmp_path / "source.nii", (4, 5, 6), kind, codes)
    voxels = np.random.default_rng(0).random((4, 5, 6), np.float32)
    write_like(tmp_path / "source.nii", [voxels], np.float32, tmp_path / "new" / "map.nii.gz")
    result = nib.load(tmp_path / "new" / "map.nii.gz")
    assert type(result) is kind
    np.testing.assert_array_equal(result.affine, source.affine)
    for name in ("qform_code", "sform_code", "pixdim", "xyzt_units", "quatern_b", "qoffset_x", "srow_y"):
        np.testing.assert_array_equal(result.header[name], source.header[name])
    np.testing.assert_array_equal(np.asarray(result.dataobj), voxels)
    assert SECRET.encode() in (tmp_path / "source.nii").read_bytes()
    nib.save(result, tmp_path / "unpacked.nii")
    assert SECRET.encode() not in (tmp_path / "unpacked.nii").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["map.nii.gz"]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 1)])
def test_axes_of_one_voxel_are_kept(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_source(tmp_path / "source.nii.gz", shape)
    write_like(tmp_path / "source.nii.gz", [np.ones((*shape, 1)[:3], np.uint8)], np.uint8, tmp_path / "mask.nii.gz")
    assert nib.load(tmp_path / "mask.nii.gz").shape == shape


def test_a_result_of_another_size_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path / "source.nii", (4, 5, 6))
    with pytest.raises(ValueError, match=r"shape \(4, 5, 6\), the result \(5, 4, 6\)"):
        write_like(tmp_path / "source.nii", [np.ones((5, 4, 6), np.uint8)], np.uint8, tmp_path / "mask.nii.gz")
