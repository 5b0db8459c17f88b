# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading of masks."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from anomalib_mediclip.io import ImageFileError, read_mask
from anomalib_mediclip.io.mask import lesion_of


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def labels() -> np.ndarray:
    """Return two lesions, one of them with a core of a higher label."""
    values = np.zeros((100, 160), dtype=np.uint8)
    values[10:40, 10:40] = 1
    values[20:30, 20:30] = 2
    values[60:90, 110:140] = 1
    return values


class TestMask:
    def test_union_of_several(self, tmp_path: Path) -> None:
        first = save(tmp_path / "a.png", np.array([[255, 0, 0]], dtype=np.uint8))
        second = save(tmp_path / "b.png", np.array([[0, 0, 1]], dtype=np.uint8))
        mask = read_mask([first, second], (1, 3))
        assert mask.dtype == torch.float32
        assert mask.tolist() == [[1, 0, 1]]

    def test_ringing_of_jpeg_is_not_lesion(self, tmp_path: Path) -> None:
        lesion = np.zeros((64, 64), dtype=np.uint8)
        lesion[19:42, 21:45] = 255
        path = save(tmp_path / "mask.jpg", lesion, quality=50)
        assert np.count_nonzero(np.asarray(Image.open(path))) > np.count_nonzero(lesion), "the file must ring"
        assert read_mask([path], (64, 64)).numpy().astype(bool).tolist() == (lesion > 0).tolist()

    @pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255)])
    def test_coloured_mask(self, tmp_path: Path, colour: tuple[int, int, int]) -> None:
        path = save(tmp_path / "mask.png", np.array([[colour, (0, 0, 0)]], dtype=np.uint8))
        assert read_mask([path], (1, 2)).tolist() == [[1, 0]]

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        path = save(tmp_path / "mask.png", np.array([[0, 65535], [65535, 1]], dtype=np.uint16))
        assert read_mask([path], (2, 2)).tolist() == [[0, 1], [1, 0]]

    def test_other_size_of_the_same_shape_is_resized(self, tmp_path: Path) -> None:
        path = save(tmp_path / "mask.png", np.array([[255, 0]] * 2, dtype=np.uint8).repeat(50, 1).repeat(50, 0))
        mask = read_mask([path], (201, 200))
        assert mask.shape == (201, 200)
        assert mask[:, :100].eq(1).all()
        assert mask[:, 100:].eq(0).all()

    def test_other_shape_names_file_and_sizes(self, tmp_path: Path) -> None:
        path = save(tmp_path / "turned.png", np.eye(40, 60, dtype=np.uint8))
        with pytest.raises(ValueError, match=r"turned\.png is 60x40.*image 40x60"):
            read_mask([path], (60, 40))

    def test_empty_mask_is_named(self, tmp_path: Path) -> None:
        good = save(tmp_path / "good.png", np.eye(4, dtype=np.uint8))
        empty = save(tmp_path / "nothing.png", np.zeros((4, 4), dtype=np.uint8))
        with pytest.raises(ValueError, match=r"nothing\.png is empty.*draw the lesion"):
            read_mask([good, empty], (4, 4))

    def test_no_masks(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            read_mask([], (4, 4))


class TestLabels:
    @pytest.mark.parametrize("levels", [(1, 2), (1, 4), (4, 1), (127, 254), (76, 255), (255, 3)])
    def test_every_label_is_lesion(self, tmp_path: Path, levels: tuple[int, int]) -> None:
        path = save(tmp_path / "labels.png", np.choose(labels(), [0, *levels]).astype(np.uint8))
        assert np.array_equal(read_mask([path], (100, 160)).numpy() > 0, labels() > 0)

    @pytest.mark.parametrize("quality", [75, 95])
    def test_labels_in_jpeg_are_told_from_ringing(self, tmp_path: Path, quality: int) -> None:
        path = save(tmp_path / "labels.jpg", np.choose(labels(), [0, 127, 254]).astype(np.uint8), quality=quality)
        found, true = read_mask([path], (100, 160)).numpy() > 0, labels() > 0
        assert np.mean(found != true) < 0.005
        assert (found & true).sum() / true.sum() > 0.99

    def test_antialiased_edge_is_cut_in_the_middle(self, tmp_path: Path) -> None:
        large = np.zeros((400, 640), dtype=np.uint8)
        large[80:242, 81:403] = 255
        image = Image.fromarray(large).resize((160, 100), Image.Resampling.BILINEAR)
        assert len(np.unique(np.asarray(image))) > 2
        image.save(tmp_path / "soft.png")
        assert read_mask([tmp_path / "soft.png"], (100, 160)).sum() == pytest.approx((large > 0).sum() / 16, rel=0.02)

    @pytest.mark.parametrize("sigma", [2, 5, 10])
    def test_wide_soft_edge_is_no_label(self, sigma: float) -> None:
        square = np.zeros((200, 200))
        square[60:140, 60:140] = 255
        blurred = np.rint(gaussian_filter(square, sigma))
        assert np.array_equal(lesion_of(blurred), blurred > blurred.max() / 2)

    @pytest.mark.parametrize("size", [(600, 400), (150, 100), (450, 300)])
    def test_what_resizing_leaves_around_edges_is_ground(self, tmp_path: Path, size: tuple[int, int]) -> None:
        lesion = np.zeros((200, 300), dtype=np.uint8)
        lesion[20:100, 20:120] = 255
        Image.fromarray(lesion).resize(size, Image.Resampling.LANCZOS).save(tmp_path / "mask.png")
        assert read_mask([tmp_path / "mask.png"], size[::-1]).mean() == pytest.approx((lesion > 0).mean(), rel=0.03)

    def test_numbers_of_many_lesions_are_all_lesion(self, tmp_path: Path) -> None:
        numbers = np.zeros((120, 200), dtype=np.uint16)
        for index in range(1, 61):
            row, column = divmod(index - 1, 10)
            numbers[row * 20 + 2 : row * 20 + 14, column * 20 + 2 : column * 20 + 20] = index
        path = save(tmp_path / "numbers.png", numbers)
        assert np.array_equal(read_mask([path], (120, 200)).numpy() > 0, numbers > 0)

    def test_values_up_to_zero_are_ground(self) -> None:
        assert lesion_of(np.array([[-1000, 0, 3]])).tolist() == [[False, False, True]]


class TestArea:
    def test_mask_of_everything_is_refused(self, tmp_path: Path) -> None:
        path = save(tmp_path / "all.png", np.full((8, 8), 255, dtype=np.uint8))
        with pytest.raises(ImageFileError, match=r"all\.png covers the whole image"):
            read_mask([path], (8, 8))

    @pytest.mark.parametrize("name", ["white.png", "white.tif"])
    def test_white_ground_is_told_once(self, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
        path = save(tmp_path / name, labels() == 0)
        with caplog.at_level(logging.WARNING):
            read_mask([path], (100, 160))
            read_mask([path], (100, 160))
        (record,) = caplog.records
        assert f"mask {path} takes 89%" in record.getMessage()
        assert "invert it" in record.getMessage()

    def test_white_palette_ground_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        image = Image.fromarray(labels(), mode="P")
        image.putpalette([255, 255, 255, 255, 0, 0, 0, 0, 0])
        image.save(tmp_path / "palette.png")
        with caplog.at_level(logging.WARNING):
            read_mask([tmp_path / "palette.png"], (100, 160))
        assert "palette.png takes" in caplog.text

    def test_large_lesion_inside_is_no_ground(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        lesion = np.zeros((50, 50), dtype=np.uint8)
        lesion[5:45, 5:45] = 255
        with caplog.at_level(logging.WARNING):
            read_mask([save(tmp_path / "large.png", lesion)], (50, 50))
        assert not caplog.records


class TestOrientation:
    def test_mask_with_its_own_orientation_is_turned(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 6
        path = save(tmp_path / "mask.png", labels(), exif=exif)
        assert np.array_equal(read_mask([path], (160, 100)).numpy() > 0, np.rot90(labels() > 0, -1))

    def test_mask_of_the_unturned_image_is_turned_alike(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        exif = Image.Exif()
        exif[274] = 8
        image = save(tmp_path / "image.jpg", labels() * 100, exif=exif)
        mask = save(tmp_path / "mask.png", labels())
        with caplog.at_level(logging.WARNING):
            found = read_mask([mask], (160, 100), image)
        assert np.array_equal(found.numpy() > 0, np.rot90(labels() > 0))
        assert "mask.png fits its image as stored" in caplog.text

    def test_without_an_orientation_it_does_not_fit(self, tmp_path: Path) -> None:
        image, mask = save(tmp_path / "image.png", labels()), save(tmp_path / "mask.png", labels())
        with pytest.raises(ImageFileError, match="use a mask of the same shape"):
            read_mask([mask], (160, 100), image)
