# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading of images."""

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from anomalib_mediclip.io import ImageFileError, find_images, read_header, read_image
from anomalib_mediclip.io.image import stretch

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


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(2, 9))
    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
    def test_image_is_shown_as_a_viewer_shows_it(self, tmp_path: Path, name: str, orientation: int) -> None:
        exif = Image.Exif()
        exif[274] = orientation
        stored = np.tile(np.arange(0, 240, 3, dtype=np.uint8), (50, 1))
        stored[5:20, 5:20] = 250
        options = {"lossless": True} if name == "a.webp" else {"quality": 98}
        path = save(tmp_path / name, stored, exif=exif, **options)
        with Image.open(path.open("rb")) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("L"))
        assert read_header(path).size == expected.shape == read_image(path).shape[1:]
        assert not read_header(path).is_plain
        assert np.abs(read_image(path)[0].numpy() * 255 - expected).max() <= 0.01

    def test_exif_after_the_pixels_of_a_png_counts(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 6
        path = save(tmp_path / "late.png", RAMP.astype(np.uint8), exif=exif)
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        path.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
        assert read_header(path).size == (128, 64)
        assert read_image(path).shape == (3, 128, 64)


class TestTiff:
    def read(self, path: Path) -> np.ndarray:
        image = read_image(path)
        assert tuple(image.shape[1:]) == read_header(path).size
        return image.numpy()

    def test_white_is_zero(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", 65535 - RAMP, photometric="miniswhite")
        np.testing.assert_allclose(self.read(tmp_path / "a.tif")[0], RAMP / RAMP.max(), atol=1e-6)

    def test_planar_rgb(self, tmp_path: Path) -> None:
        planes = np.stack([RAMP, RAMP // 2, RAMP // 4])
        tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
        np.testing.assert_allclose(self.read(tmp_path / "a.tif"), planes / RAMP.max(), atol=1e-6)

    @pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64"])
    @pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
    def test_numbers_of_all_types(self, tmp_path: Path, dtype: str, compression: str | None) -> None:
        signed = np.dtype(dtype).kind != "u"
        values = np.linspace(-100 * signed, 120, 600).reshape(20, 30)
        values *= 1 if np.dtype(dtype).itemsize < 4 else 2**24 if np.dtype(dtype).kind in "iu" else 1e-3
        tifffile.imwrite(tmp_path / "a.tif", values.astype(dtype), compression=compression)
        expected = values.astype(dtype).astype(np.float64)
        expected = (expected - expected.min()) / np.ptp(expected)
        np.testing.assert_allclose(self.read(tmp_path / "a.tif")[1], expected, atol=1e-6)

    def test_ink(self, tmp_path: Path) -> None:
        ink = np.zeros((2, 2, 4), dtype=np.uint16)
        ink[0, 0] = (0, 65535, 65535, 0)
        ink[1, 1, 3] = 65535
        tifffile.imwrite(tmp_path / "a.tif", ink, photometric="separated")
        assert self.read(tmp_path / "a.tif")[:, [0, 0, 1], [0, 1, 1]].T.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]

    @pytest.mark.parametrize("compression", ["webp", "zstd", "lerc", "jpegxl", "packbits", "lzma"])
    def test_compressions(self, tmp_path: Path, compression: str) -> None:
        colours = np.stack([RAMP % 256, RAMP % 7, RAMP % 100], axis=2).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", compression=compression)
        assert np.abs(self.read(tmp_path / "a.tif") * 255 - colours.transpose(2, 0, 1)).mean() < 6  # WebP loses some

    def test_premultiplied_colours_are_those_over_black(self, tmp_path: Path) -> None:
        grey = RAMP.astype(np.uint8) // 2
        for name, alpha in (("half.tif", np.full_like(grey, 128)), ("none.tif", grey * 0)):
            pixels = np.dstack([grey, grey, grey, alpha])
            tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", extrasamples=["assocalpha"])
            np.testing.assert_allclose(self.read(tmp_path / name)[0] * 255, grey, atol=1e-4)

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("bigtiff", [False, True])
    def test_byte_order_and_large_offsets(self, tmp_path: Path, byteorder: str, bigtiff: bool) -> None:
        tifffile.imwrite(tmp_path / "a.tif", RAMP, byteorder=byteorder, bigtiff=bigtiff)
        np.testing.assert_allclose(self.read(tmp_path / "a.tif")[0], RAMP / RAMP.max(), atol=1e-6)

    @pytest.mark.parametrize(
        ("pixels", "options", "kind"),
        [
            (np.zeros((4, 4), dtype=np.complex64), {}, "complex64"),
            (np.zeros((4, 4, 5), dtype=np.uint16), {"photometric": "minisblack", "planarconfig": "contig"}, "channels"),
            (np.zeros((4, 4, 3), dtype=np.uint16), {"photometric": "cielab"}, "CIELAB"),
        ],
    )
    def test_what_is_not_supported_is_said(self, tmp_path: Path, pixels: np.ndarray, options: dict, kind: str) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
        with pytest.raises(ImageFileError, match=rf"a\.tif: .*{kind}.* not supported: convert it to PNG or TIFF"):
            read_image(tmp_path / "a.tif")

    def test_truncated_deep_file_is_named(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.float32))
        (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:9000])
        with pytest.raises(ImageFileError, match=r"a\.tif: truncated or damaged"):
            read_image(tmp_path / "a.tif")


class TestNetpbm:
    @pytest.mark.parametrize("maximum", [100, 255, 4095, 65535])
    @pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
    def test_any_maximum(self, tmp_path: Path, kind: str, maximum: int) -> None:
        grey = np.linspace(0, maximum, 64 * 128).astype(np.uint16).reshape(64, 128)
        pixels = np.dstack([grey] * 3) if kind in {"P3", "P6"} else grey
        binary = pixels.astype(">u2" if maximum > 255 else "u1").tobytes()
        body = " ".join(map(str, pixels.ravel())).encode() if kind in {"P2", "P3"} else binary
        (tmp_path / "a.ppm").write_bytes(f"{kind}\n128 64\n{maximum}\n".encode() + body)
        if kind == "P3" and maximum > 255:
            with pytest.raises(ImageFileError, match=r"a\.ppm: a PPM in plain text .* is not supported"):
                read_image(tmp_path / "a.ppm")
        else:
            atol = 0.01 if maximum < 256 else 1e-4
            np.testing.assert_allclose(read_image(tmp_path / "a.ppm")[1], grey / maximum, atol=atol)


class TestAlpha:
    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_of_zero_everywhere_is_ignored(
        self, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        image = Image.fromarray(RAMP.astype(np.uint8)).convert(mode)
        image.putalpha(0)
        path = save(tmp_path / "clear.png", image)
        with caplog.at_level(logging.WARNING):
            first, second = read_image(path), read_image(path)
        np.testing.assert_allclose(first[0].numpy() * 255, RAMP.astype(np.uint8), atol=1e-4)
        assert torch.equal(first, second)
        assert [record.getMessage() for record in caplog.records] == [
            f"{path} is transparent everywhere: its alpha channel is ignored"
        ]

    def test_bitmap_of_32_bits(self, tmp_path: Path) -> None:
        image = Image.new("RGBA", (3, 2), (10, 20, 30, 0))
        assert read_image(save(tmp_path / "a.bmp", image))[:, 0, 0].tolist() == pytest.approx(
            [10 / 255, 20 / 255, 30 / 255]
        )

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), np.dstack([RAMP, RAMP, RAMP, RAMP * 0]))
        np.testing.assert_allclose(read_image(tmp_path / "a.png")[0], RAMP / RAMP.max(), atol=1e-6)


class TestDefects:
    @pytest.mark.parametrize("defect", [65535, 0])
    def test_one_defective_pixel_does_not_change_the_others(self, tmp_path: Path, defect: int) -> None:
        sound = (30000 + RAMP // 4).astype(np.uint16)
        broken = sound.copy()
        broken[10, 20] = defect
        expected = read_image(save(tmp_path / "sound.png", sound))
        found = read_image(save(tmp_path / "broken.png", broken))
        assert (found - expected).abs().max() < 0.02
        found[:, 10, 20] = expected[:, 10, 20]
        assert torch.equal(found, expected)

    def test_a_small_bright_lesion_is_no_defect(self, tmp_path: Path) -> None:
        lesion = (30000 + RAMP // 4).astype(np.uint16)
        lesion[10:14, 20:24] = 65535  # 0.2 % of the pixels
        image = read_image(save(tmp_path / "lesion.png", lesion))[0].numpy()
        np.testing.assert_allclose(image, (lesion - 30000.0) / 35535, atol=1e-6)

    def test_the_ends_of_an_ordinary_image_count(self) -> None:
        noise = np.random.default_rng(0).normal(size=(300, 300, 1))
        expected = (noise - noise.min()) / np.ptp(noise)
        np.testing.assert_array_equal(stretch(noise), expected)


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
