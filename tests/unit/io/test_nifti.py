# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""NIfTI volumes: which way slices are turned, values, what is refused."""

import errno
import gzip
import tempfile
import tracemalloc
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from anomalib_mediclip.display import PLANES, set_slice_plane, set_window
from anomalib_mediclip.io import ImageFileError, check_same_grid, nifti, read_header, read_image, slices_of
from anomalib_mediclip.io.nifti import Grid, NiftiVolume, part_of_slices, read_grid, to_slices
from tests.helpers.volumes import make_nifti

# To which side slices, rows and columns run as radiologists look at them, as axis and sign of millimetres (R, A, S).
SIDES = {
    "axial": ((2, 1), (1, -1), (0, -1)),
    "coronal": ((1, 1), (2, -1), (0, -1)),
    "sagittal": ((0, 1), (2, -1), (1, -1)),
}


def rotation(degrees: float, axis: int) -> np.ndarray:
    """Return a rotation about an axis of space."""
    angle, matrix = np.radians(degrees), np.eye(3)
    first, second = [other for other in range(3) if other != axis]
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def affines() -> list[np.ndarray]:
    """Return the 48 orientations of a volume, each turned obliquely."""
    made = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        axes = np.zeros((3, 3))
        axes[list(order), range(3)] = np.array(signs) * (2.0, 1.5, 3.0)
        affine = np.eye(4)
        affine[:3, :3] = rotation(20, 2) @ rotation(10, 0) @ axes
        affine[:3, 3] = (-30, 10, 5)
        made.append(affine)
    return made


class TestOrientation:
    @pytest.mark.parametrize("plane", PLANES)
    def test_a_ball_is_where_a_radiologist_looks_for_it(self, tmp_path: Path, plane: str) -> None:
        set_slice_plane(plane)
        shape, place = (11, 14, 9), np.array([8, 3, 2])
        for affine in affines():
            volume = np.zeros(shape, np.int16)
            volume[tuple(place)] = 100
            path = make_nifti(tmp_path / "a.nii", volume, affine)
            images = np.stack([read_image(one)[0].numpy() for one in slices_of(path)])
            found = np.unravel_index(images.argmax(), images.shape)
            for number, length, (axis, sign) in zip(found, images.shape, SIDES[plane], strict=True):
                stored = int(np.abs(affine[axis, :3] / np.linalg.norm(affine[:3, :3], axis=0)).argmax())
                is_along = affine[axis, stored] * sign > 0
                assert length == shape[stored]
                assert number == (place[stored] if is_along else shape[stored] - 1 - place[stored])

    @pytest.mark.parametrize("plane", PLANES)
    def test_a_slab_of_the_volume_is_the_same_part_of_its_slices(self, plane: str) -> None:
        volume = np.arange(2 * 3 * 5).reshape(2, 3, 5)
        for affine in affines():
            grid = Grid(volume.shape, affine, volume.dtype, 0, 1.0, 0.0)
            part = part_of_slices(grid, plane, 1, 4)
            slab = to_slices(volume[..., 1:4], affine, plane)
            assert np.array_equal(to_slices(volume, affine, plane)[part], slab)


class TestValues:
    def test_a_window_of_the_user(self, tmp_path: Path) -> None:
        volume = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 60
        path = make_nifti(tmp_path / "a.nii.gz", volume)
        set_window("0,100")
        for index, one in enumerate(slices_of(path)):
            expected = np.clip((volume[::-1, ::-1, index].T + 50.0) / 100, 0, 1)
            assert torch.equal(read_image(one), torch.from_numpy(expected.copy()).float().expand(3, -1, -1))

    def test_all_slices_share_the_percentiles_of_the_volume(self, tmp_path: Path) -> None:
        volume = np.random.default_rng(0).normal(300, 50, (10, 12, 14)).astype(np.float32)
        path = make_nifti(tmp_path / "a.nii", volume)
        low, high = np.percentile(volume.astype(np.float64), (0.5, 99.5))
        expected = np.clip((volume[::-1, ::-1, 3].T.astype(np.float64) - low) / (high - low), 0, 1)
        np.testing.assert_allclose(read_image(path / "0003")[0].numpy(), expected, atol=1e-6)

    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    @pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.float32, np.float64, np.int32])
    def test_versions_and_numbers(self, tmp_path: Path, kind: type, name: str, dtype: str) -> None:
        volume = np.arange(60, dtype=dtype).reshape(3, 4, 5)
        image = kind(volume, np.eye(4))
        image.header.set_slope_inter(2, -7)
        image.to_filename(tmp_path / name)
        values = nib.load(tmp_path / name).get_fdata()
        set_window("50,100")
        expected = np.clip(values[::-1, ::-1, 2].T / 100, 0, 1).copy()
        np.testing.assert_allclose(read_image(tmp_path / name / "0002")[0].numpy(), expected, atol=1e-6)

    def test_nan_and_infinite_voxels(self, tmp_path: Path) -> None:
        volume = np.linspace(0, 1, 120).reshape(4, 5, 6).astype(np.float32)
        volume[0, 0], volume[1, 1, 1] = np.nan, -np.inf
        volume[2, 2, 2] = np.inf
        images = torch.stack([read_image(one) for one in slices_of(make_nifti(tmp_path / "a.nii", volume))])
        assert images.isfinite().all()
        shown = images[:, 0].numpy()[:, ::-1, ::-1].transpose(2, 1, 0)  # axes as they are stored
        assert not shown[0, 0].any()
        assert (shown[1, 1, 1], shown[2, 2, 2]) == (0, 1)

    def test_a_constant_and_a_nearly_empty_volume(self, tmp_path: Path) -> None:
        volume = np.zeros((20, 20, 20), np.int16)
        assert not read_image(make_nifti(tmp_path / "a.nii", volume) / "0010").any()
        volume[10, 10, 10] = 7
        assert read_image(make_nifti(tmp_path / "b.nii", volume) / "0010").max() == 1

    def test_a_volume_of_one_slice(self, tmp_path: Path) -> None:
        path = make_nifti(tmp_path / "a.nii", np.arange(12, dtype=np.int16).reshape(3, 4))
        assert slices_of(path) == [path / "0000"]
        assert read_header(path / "0000").size == (4, 3)


class TestRefused:
    @pytest.mark.parametrize(
        ("volume", "affine", "cause"),
        [
            (np.zeros((2, 3, 4, 5), np.int16), np.eye(4), r"it holds 5 volumes \(size 2x3x4x5\): save the one"),
            (np.full((2, 3, 4), np.nan, np.float32), np.eye(4), "no voxel is a finite number"),
            (np.zeros((2, 3, 4), np.int16), np.diag([1.0, 0.0, 1.0, 1.0]), "affine matrix is singular"),
            (np.zeros((2, 3, 4), np.complex64), np.eye(4), "complex numbers"),
        ],
    )
    def test_the_message_names_file_and_cause(
        self, tmp_path: Path, volume: np.ndarray, affine: np.ndarray, cause: str
    ) -> None:
        image = nib.Nifti1Image(volume, None)
        image.header.set_sform(affine, code=1)
        image.to_filename(tmp_path / "scan.nii.gz")
        for path in (tmp_path / "scan.nii.gz", tmp_path / "scan.nii.gz" / "0000"):
            with pytest.raises(ImageFileError, match=rf"cannot read .*scan\.nii\.gz.*: .*{cause}"):
                [read_image(one) for one in (slices_of(path) if path.is_file() else [path])]

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_a_truncated_file(self, tmp_path: Path, name: str) -> None:
        content = make_nifti(tmp_path / name, np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype(np.int16))
        content.write_bytes(content.read_bytes()[:-200])
        with pytest.raises(ImageFileError, match=rf"{name}/0000: .*truncated"):
            read_image(content / "0000")

    def test_a_header_that_promises_too_much_takes_no_memory(self, tmp_path: Path) -> None:
        header = bytearray(make_nifti(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16)).read_bytes())
        header[40:56] = np.array([3, 600, 600, 600, 1, 1, 1, 1], np.int16).tobytes()
        (tmp_path / "a.nii").write_bytes(header)
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(header)))
        for name in ("a.nii", "b.nii.gz"):
            with pytest.raises(ImageFileError, match="truncated: it has"):
                read_image(tmp_path / name / "0000")
        header[40:56] = np.array([3, 9000, 9000, 9000, 1, 1, 1, 1], np.int16).tobytes()
        (tmp_path / "a.nii").write_bytes(header)
        with pytest.raises(ImageFileError, match=r"9000x9000x9000 voxels .* limit is 1024: .*--max_megapixels"):
            read_image(tmp_path / "a.nii" / "0000")

    def test_two_files_are_named(self, tmp_path: Path) -> None:
        nib.Nifti1Pair(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_filename(tmp_path / "a.hdr")
        with pytest.raises(ImageFileError, match=r"two files \(\.hdr and \.img\)"):
            slices_of(tmp_path / "a.hdr")

    def test_masks_on_other_voxels(self, tmp_path: Path) -> None:
        volume = np.zeros((4, 5, 6), np.int16)
        image = make_nifti(tmp_path / "a.nii", volume)
        check_same_grid(image, make_nifti(tmp_path / "same.nii", volume))
        for name, other, affine in (
            ("size.nii", volume[:3], np.eye(4)),
            ("flipped.nii", volume, np.diag([-1.0, 1, 1, 1])),
        ):
            with pytest.raises(ImageFileError, match=rf"mask .*{name} does not lie on the voxels of .*a\.nii"):
                check_same_grid(image, make_nifti(tmp_path / name, other, affine))


def test_the_grid_is_that_of_nibabel(tmp_path: Path) -> None:
    for affine in affines()[::7]:
        path = make_nifti(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.int16), affine)
        assert np.allclose(read_grid(path).affine, nib.load(path).affine)
        assert read_grid(path).shape == (3, 4, 5)


class TestUnpacking:
    """A compressed volume is unpacked into a temporary file."""

    def test_it_is_not_in_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nifti, "_CHUNK", 2**16)
        voxels = np.random.default_rng(0).integers(0, 1000, (128, 128, 128), np.int16)
        path = make_nifti(tmp_path / "scan.nii.gz", voxels)
        tracemalloc.start()
        volume = NiftiVolume(path, "axial")
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert held < voxels.nbytes / 20
        shown = to_slices(voxels, volume.grid.affine, "axial")
        for index in (0, 100, 127):
            np.testing.assert_array_equal(volume.read(index, None).pixels[..., 0], shown[index])

    def test_a_full_disk_is_no_damaged_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_nifti(tmp_path / "scan.nii.gz", np.zeros((4, 5, 6), np.int16))

        def full() -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(tempfile, "TemporaryFile", full)
        with pytest.raises(ImageFileError, match=r"scan.nii.gz.*\(No space left on device\).*TMPDIR"):
            read_image(path / "0000")
