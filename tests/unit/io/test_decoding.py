# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Kinds of files, limits, large images, damaged files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalib_mediclip.io import ImageFileError, read_header, read_image, read_mask
from anomalib_mediclip.io import decoding as module
from tests.conftest import REPOSITORY

PICTURE = np.tile(np.arange(40, 200, dtype=np.uint8), (100, 1))
PICTURE[10:40, 10:40] = 250


class TestKinds:
    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"\0" * 128 + b"DICM" + b"\0" * 100, "it looks like DICOM but states no size of an image"),
            (
                (348).to_bytes(4, "little") + b"\0" * 340 + b"n+1\0",
                "the header of this NIfTI file is truncated or damaged",
            ),
            (b"\0\0\0\x18ftypheic", "a HEIC image is not supported"),
            (b"<html>404</html>", "not an image of a supported format"),
            (b"", "the file is empty"),
        ],
    )
    def test_it_is_said_what_a_file_is(self, tmp_path: Path, content: bytes, kind: str) -> None:
        (tmp_path / "scan.png").write_bytes(content)
        for read in (read_image, read_header):
            with pytest.raises(ImageFileError, match=rf"cannot read .*scan\.png: {kind}") as raised:
                read(tmp_path / "scan.png")
            assert "delete" not in str(raised.value)


class TestLimit:
    def test_an_image_above_it_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.fromarray(PICTURE).save(tmp_path / "a.png")
        tifffile.imwrite(tmp_path / "a.tif", PICTURE.astype(np.float32))
        monkeypatch.setenv("ANOMALIB_MEDICLIP_MAX_MEGAPIXELS", "0.0159")
        for name in ("a.png", "a.tif"):
            with pytest.raises(ImageFileError, match=r"160x100 pixels .* limit is 0\.0159: .* --max_megapixels"):
                read_image(tmp_path / name)
        monkeypatch.setenv("ANOMALIB_MEDICLIP_MAX_MEGAPIXELS", "0.016")
        assert read_image(tmp_path / "a.png").shape == (3, 100, 160)

    def test_limit_of_pillow_does_not_count(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.fromarray(PICTURE).save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert read_image(tmp_path / "a.png").shape == (3, 100, 160)
        assert Image.MAX_IMAGE_PIXELS == 100

    def test_a_wrong_limit_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.fromarray(PICTURE).save(tmp_path / "a.png")
        monkeypatch.setenv("ANOMALIB_MEDICLIP_MAX_MEGAPIXELS", "many")
        with pytest.raises(
            ValueError, match=r"a\.png: ANOMALIB_MEDICLIP_MAX_MEGAPIXELS=many: it must be a positive number"
        ):
            read_image(tmp_path / "a.png")


class TestLargeImages:
    @pytest.mark.parametrize(
        "name", ["a.png", "a.jpg", "a.bmp", "deep.png", "deep.tif", "rgb.png", "rgb.tif", "rgba.png"]
    )
    def test_they_are_averaged(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        pixels = PICTURE.astype(np.uint16) * 100 if name.startswith("deep") else PICTURE
        pixels = np.repeat(pixels[..., None], 3, axis=2) if name.startswith("rgb") else pixels
        pixels = np.dstack([pixels, np.full_like(PICTURE, 255)]) if name == "rgba.png" else pixels
        Image.fromarray(pixels).save(tmp_path / name, **({"quality": 99} if name == "a.jpg" else {}))
        whole = read_image(tmp_path / name)
        monkeypatch.setattr(module, "LARGE", PICTURE.size // 4)
        monkeypatch.setattr(module, "_STRIP", 1000)
        found = read_image(tmp_path / name)
        expected = whole.reshape(3, 50, 2, 80, 2).mean(dim=(2, 4))
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 0.02
        assert read_header(tmp_path / name).size == (100, 160)

    def test_masks_are_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.fromarray((PICTURE == 250).astype(np.uint8)).save(tmp_path / "a.png")
        monkeypatch.setattr(module, "LARGE", PICTURE.size // 4)
        assert np.array_equal(read_mask([tmp_path / "a.png"], (50, 80)).numpy() > 0, (PICTURE == 250)[::2, ::2])

    @pytest.mark.slow
    @pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak of the memory from /proc")
    def test_200_megapixels_stay_below_1500_megabytes(self, tmp_path: Path) -> None:
        large = np.zeros((10_000, 20_000), dtype=np.uint8)
        large[2000:4000, 4000:8000] = 200
        Image.fromarray(large).save(tmp_path / "large.png", compress_level=1)
        script = (
            "import re, sys; from anomalib_mediclip.io import read_image; image = read_image(sys.argv[1]);"
            "peak = re.search('VmHWM: *([0-9]+)', open('/proc/self/status').read().replace(chr(9), ' '))[1];"
            "print(*image.shape, image[0, 750, 1500].item(), peak)"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "large.png")]
        result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
        channels, height, width, value, kilobytes = result.stdout.split()
        assert (channels, height, width, float(value)) == ("3", "2500", "5000", pytest.approx(200 / 255))
        assert int(kilobytes) < 1_500_000


ORIENTED = st.integers(1, 8)


def shown(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels by the definition of the EXIF tag: where the first row and the first column are."""
    transposed = np.swapaxes(stored, 0, 1) if orientation > 4 else stored
    down = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[orientation]
    return transposed[:: down[0], :: down[1]]


class TestProperties:
    @settings(max_examples=150, deadline=None)
    @given(
        data=st.data(),
        container=st.sampled_from(["png", "tif", "webp"]),
        channels=st.sampled_from([1, 3, 4]),
        deep=st.booleans(),
        orientation=ORIENTED,
    )
    def test_every_kind_is_read_as_shown(self, tmp_path_factory, data, container, channels, deep, orientation) -> None:
        """Mode, depth, orientation, alpha and container: the picture is what the pixels say."""
        height, width = data.draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
        deep = deep and container == "tif"
        seed = data.draw(st.integers(0, 9))
        dtype = np.uint16 if deep else np.uint8
        pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)
        path = tmp_path_factory.getbasetemp() / f"any.{container}"
        if container == "tif":
            photometric = "minisblack" if channels == 1 else "rgb"
            extra = ["unassalpha"] if channels == 4 else None
            tags = [(274, "H", 1, orientation, True)]
            tifffile.imwrite(
                path,
                pixels.squeeze(2) if channels == 1 else pixels,
                photometric=photometric,
                extrasamples=extra,
                extratags=tags,
                metadata=None,
            )
        else:
            exif = Image.Exif()
            exif[274] = orientation
            options = {"lossless": True, "exact": True} if container == "webp" else {}
            Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(path, exif=exif, **options)
        colours = pixels[..., :3].astype(np.float64)
        if channels == 4 and pixels[..., 3].any():
            colours = colours * (pixels[..., 3:] / np.iinfo(dtype).max)
        expected = shown(np.broadcast_to(colours, (height, width, 3)), orientation)
        expected = (expected - expected.min()) / max(np.ptp(expected), 1e-9) if deep else expected / 255
        found = read_image(path).numpy().transpose(1, 2, 0)
        assert found.shape == (*read_header(path).size, 3)
        np.testing.assert_allclose(found, expected, atol=2 / 255 if channels == 4 else 1e-5)
