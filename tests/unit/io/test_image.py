# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading of images."""

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_mediclip.io import find_images, read_header, read_image

RED, TRANSPARENT = (255, 0, 0, 255), (0, 255, 0, 0)
RAMP = np.arange(64 * 128, dtype=np.uint16).reshape(64, 128)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def colours(path: Path) -> list[list[float]]:
    """Return the colours of the first row."""
    return read_image(path)[:, 0].T.tolist()


def message_of_reading(path: Path) -> str | None:
    """Return the message of the ValueError that reading raises; any other exception passes."""
    try:
        read_image(path)
    except ValueError as error:
        return str(error)
    return None


class TestModes:
    def test_grey_is_repeated(self, tmp_path: Path) -> None:
        path = save(tmp_path / "grey.png", np.array([[0, 51, 255]], dtype=np.uint8))
        image = read_image(path)
        assert image.dtype == torch.float32
        assert image.is_contiguous()
        torch.testing.assert_close(image, torch.tensor([0, 0.2, 1]).expand(3, 1, 3))

    def test_rgb_keeps_the_order_of_channels(self, tmp_path: Path) -> None:
        path = save(tmp_path / "rgb.png", np.array([[[255, 0, 51]]], dtype=np.uint8))
        assert colours(path) == [pytest.approx([1, 0, 0.2])]

    def test_palette_gives_its_colours(self, tmp_path: Path) -> None:
        palette = Image.new("P", (2, 1))
        palette.putpalette([255, 0, 0, 0, 0, 255])
        palette.putpixel((1, 0), 1)
        assert colours(save(tmp_path / "palette.png", palette)) == [[1, 0, 0], [0, 0, 1]]

    def test_one_bit_is_black_and_white(self, tmp_path: Path) -> None:
        path = save(tmp_path / "bits.png", np.array([[True, False]]))
        assert colours(path) == [[1, 1, 1], [0, 0, 0]]

    def test_transparent_colour_becomes_black(self, tmp_path: Path) -> None:
        path = save(tmp_path / "rgba.png", np.array([[RED, TRANSPARENT]], dtype=np.uint8))
        assert colours(path) == [[1, 0, 0], [0, 0, 0]]

    def test_transparent_grey_becomes_black(self, tmp_path: Path) -> None:
        image = Image.new("LA", (2, 1), (255, 255))
        image.putpixel((1, 0), (255, 0))
        assert colours(save(tmp_path / "la.png", image)) == [[1, 1, 1], [0, 0, 0]]

    def test_cmyk_without_ink_is_white(self, tmp_path: Path) -> None:
        path = save(tmp_path / "cmyk.tif", Image.new("CMYK", (1, 1), (0, 255, 255, 0)))
        assert colours(path) == [[1, 0, 0]]

    def test_first_frame_of_several_is_announced(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        black, white = Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 255)
        path = save(tmp_path / "stack.tif", black, save_all=True, append_images=[white])
        with caplog.at_level(logging.WARNING):
            assert read_image(path).max() == 0
        assert "stack.tif holds 2 frames" in caplog.text


class TestDepth:
    @pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.pgm"])
    def test_sixteen_bit_ramp_is_not_saturated(self, tmp_path: Path, name: str) -> None:
        assert cv2.imwrite(str(tmp_path / name), RAMP)
        values = read_image(tmp_path / name)[0].flatten()
        assert values[0] == 0
        assert values[-1] == 1
        assert (values.diff() > 0).all(), "every grey level must stay distinct"

    def test_twelve_bits_in_sixteen_fill_the_range(self, tmp_path: Path) -> None:
        twelve_bits = np.array([[1000, 2000, 3000]], dtype=np.uint16)
        assert cv2.imwrite(str(tmp_path / "radiograph.png"), twelve_bits)
        torch.testing.assert_close(read_image(tmp_path / "radiograph.png")[0, 0], torch.tensor([0, 0.5, 1]))

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_signed_values_are_stretched(self, tmp_path: Path, dtype: type) -> None:
        hounsfield = np.array([[-1000, 0, 1000]], dtype=dtype)
        image = read_image(save(tmp_path / "ct.tif", hounsfield))
        torch.testing.assert_close(image[1, 0], torch.tensor([0, 0.5, 1]))

    def test_values_that_are_not_finite_become_zero(self, tmp_path: Path) -> None:
        path = save(tmp_path / "nan.tif", np.array([[np.nan, 2, 4, np.inf]], dtype=np.float32))
        assert read_image(path)[0, 0].tolist() == [0, 0, 1, 0]

    def test_constant_deep_image_is_zero(self, tmp_path: Path) -> None:
        path = save(tmp_path / "constant.png", np.full((4, 4), 40000, dtype=np.uint16))
        assert read_image(path).eq(0).all()

    @pytest.mark.parametrize("name", ["colour.png", "colour.tif", "colour.ppm"])
    def test_sixteen_bit_colour_keeps_levels_and_channels(self, tmp_path: Path, name: str) -> None:
        blue_green_red = np.stack([RAMP // 4, RAMP // 2, RAMP], axis=2)
        assert cv2.imwrite(str(tmp_path / name), blue_green_red)
        image = read_image(tmp_path / name)
        assert image[0].unique().numel() == RAMP.size
        torch.testing.assert_close(image.amax(dim=(1, 2)), torch.tensor([1, 0.5, 0.25]), atol=1e-3, rtol=0)

    def test_sixteen_bit_transparency_becomes_black(self, tmp_path: Path) -> None:
        pixels = np.array([[[0, 0, 60000, 65535], [0, 60000, 0, 0]]], dtype=np.uint16)
        assert cv2.imwrite(str(tmp_path / "deep.png"), pixels)
        assert colours(tmp_path / "deep.png") == [[1, 0, 0], [0, 0, 0]]

    def test_depth_is_told_from_the_header(self, tmp_path: Path) -> None:
        for name in ("deep.png", "deep.tif", "deep.pgm"):
            cv2.imwrite(str(tmp_path / name), RAMP)
        for name in ("colour.png", "colour.ppm"):
            cv2.imwrite(str(tmp_path / name), np.stack([RAMP] * 3, axis=2))
        shallow = RAMP.astype(np.uint8)
        for name in ("grey.png", "grey.jpg", "grey.tif", "grey.pgm", "grey.bmp", "grey.webp"):
            save(tmp_path / name, shallow)
        save(tmp_path / "rgb.ppm", np.stack([shallow] * 3, axis=2))
        deep = {path.name for path in tmp_path.iterdir() if not read_header(path).is_plain}
        assert deep == {"deep.png", "deep.tif", "deep.pgm", "colour.png", "colour.ppm"}

    def test_header_is_enough(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "whole.png"), RAMP)
        (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
        assert not read_header(tmp_path / "cut.png").is_plain


class TestDamage:
    @pytest.mark.parametrize("extension", ["png", "jpg", "tif", "bmp", "webp"])
    def test_truncated_file_is_named(self, tmp_path: Path, extension: str) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        path = save(tmp_path / f"half.{extension}", noise)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=rf"half\.{extension}.*copy it again"):
            read_image(path)

    @pytest.mark.parametrize(
        ("content", "cause"),
        [(b"", "empty"), (b"<html>404</html>", "not an image"), (b"\x89PNG\r\n\x1a\nrubbish", "not an image")],
    )
    def test_what_is_no_image_is_named(self, tmp_path: Path, content: bytes, cause: str) -> None:
        path = tmp_path / "scan.png"
        path.write_bytes(content)
        for read in (read_image, read_header):
            with pytest.raises(ValueError, match=rf"scan\.png.*{cause}.*copy it again"):
                read(path)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("extension", ["png", "jpg", "tif"])
    def test_damaged_bytes_never_raise_anything_else(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        extension: str,
    ) -> None:
        monkeypatch.setenv("ANOMALIB_MEDICLIP_MAX_MEGAPIXELS", "0.1")  # a damaged size must not cost memory
        rng = np.random.default_rng(0)
        path = save(tmp_path / f"damaged.{extension}", RAMP.astype(np.uint8))
        sound = path.read_bytes()
        for _ in range(50):
            content = bytearray(sound)
            for position in rng.integers(0, min(len(content), 300), 10):
                content[position] = rng.integers(256)
            path.write_bytes(content)
            assert str(path) in (message_of_reading(path) or str(path))

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
            read_image(tmp_path / "nowhere.png")

    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files through /proc")
    def test_no_file_stays_open(self, tmp_path: Path) -> None:
        good = save(tmp_path / "good.png", RAMP)
        (bad := tmp_path / "bad.png").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
        assert message_of_reading(good) is None
        assert message_of_reading(bad) is not None
        open_files = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
        assert not open_files & {str(good), str(bad)}


def test_real_images_agree_with_pillow(real_data: Path) -> None:
    paths = [
        *find_images(real_data / "brain_tumor_dataset")[::25],
        real_data / "Dataset_BUSI_with_GT/normal/normal (1).png",
    ]
    for path in paths:
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        actual = (read_image(path) * 255).round().permute(1, 2, 0).numpy()
        assert (actual == expected).all(), os.fspath(path)
