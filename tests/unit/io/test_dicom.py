# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""DICOM images: values against a computation by hand, what is refused, and order in a series."""

import logging
import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1, SegmentationStorage, generate_uid

from anomalib_mediclip.display import set_window
from anomalib_mediclip.io import ImageFileError, NoImageError, read_header, read_image, search, series_of, slices_of
from tests.helpers.volumes import SECRET, functional_group, make_dicom, make_series

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def linear(values: np.ndarray, centre: float, width: float) -> torch.Tensor:
    """Return grey values of the linear window of the standard (PS3.3 C.11.2.1.2.1), computed case by case."""
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    shown = [0 if x <= low else 1 if x > high else (x - low) / (width - 1) for x in values.astype(np.float64).flat]
    return torch.tensor(shown, dtype=torch.float64).reshape(values.shape).float()


class TestValues:
    @pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (0.5, -3000), (-1, 100)])
    @pytest.mark.parametrize(("centre", "width"), [(40, 400), (1024, 2048), (-600, 1500), (100.5, 1)])
    def test_rescaling_and_the_window_of_the_file(
        self, tmp_path: Path, slope: float, intercept: float, centre: float, width: float
    ) -> None:
        options = {"RescaleSlope": slope, "RescaleIntercept": intercept, "WindowCenter": centre, "WindowWidth": width}
        pixels = RAMP[::2, ::3]
        image = read_image(make_dicom(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11, **options))
        assert image.dtype == torch.float32
        expected = linear(pixels.astype(np.float64) * slope + intercept, centre, width)
        assert torch.equal(image, expected.expand(3, -1, -1))

    @pytest.mark.parametrize(
        "name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "693_J2KI.dcm"]
    )
    def test_files_of_pydicom(self, name: str) -> None:
        path = Path(str(get_testdata_file(name, download=False)))
        header = pydicom.dcmread(path)
        values = pixel_array(header).astype(np.float64)
        values = values * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
        if "WindowWidth" in header:
            expected = linear(values, float(header.WindowCenter), float(header.WindowWidth))
        else:
            low, high = values.min(), values.max()
            expected = torch.from_numpy((values - low) / (high - low)).float()
        assert torch.equal(read_image(path)[0], expected)

    @pytest.mark.parametrize("name", sorted(path.name for path in FILES.glob("*rgb*.dcm")))
    def test_colours_of_pydicom(self, name: str) -> None:
        for path in slices_of(FILES / name):
            image = read_image(path)
            stored = pixel_array(pydicom.dcmread(FILES / name))
            stored = stored[int(path.name)] if path.name != name else stored
            top = 255 if stored.dtype == np.uint8 else stored.max()
            torch.testing.assert_close(
                image, torch.from_numpy(stored / top).permute(2, 0, 1).float(), rtol=0, atol=1e-6
            )

    def test_every_syntax_of_one_image_gives_the_same(self) -> None:
        expected = read_image(FILES / "MR_small.dcm")
        names = ("RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded")
        for name in names:
            assert torch.equal(read_image(FILES / f"MR_small_{name}.dcm"), expected), name

    @pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
    @pytest.mark.parametrize(
        ("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16), (np.int16, 12), (np.int16, 16)]
    )
    def test_lossless_jpeg(self, tmp_path: Path, syntax: str, dtype: type, bits: int) -> None:
        low = -(2 ** (bits - 1)) if dtype is np.int16 else 0
        pixels = np.random.default_rng(0).integers(low, low + 2**bits, (2, 24, 20)).astype(dtype)
        options = {"BitsStored": bits, "HighBit": bits - 1, "WindowCenter": 10, "WindowWidth": 2**bits}
        path = make_dicom(tmp_path / "a.dcm", pixels, **options)
        file = pydicom.dcmread(path)
        unsigned = (pixels.astype(np.int64) & (2**bits - 1)).astype(f"u{pixels.dtype.itemsize}")
        frames = [imagecodecs.ljpeg_encode(frame, bitspersample=bits) for frame in unsigned]
        file.PixelData = pydicom.encaps.encapsulate(frames)
        file["PixelData"].VR, file.file_meta.TransferSyntaxUID = "OB", syntax
        file.save_as(tmp_path / "b.dcm")
        for plain, packed in zip(slices_of(path), slices_of(tmp_path / "b.dcm"), strict=True):
            assert torch.equal(read_image(packed), read_image(plain))

    def test_jpeg_of_12_bits(self) -> None:
        image = read_image(FILES / "JPGExtended.dcm")
        assert image.shape == (3, 1024, 256)
        assert image[0].unique().numel() > 200
        assert image[0].median() < 0.2 < image[0].max()

    def test_a_12_bit_ramp_keeps_its_levels(self, tmp_path: Path) -> None:
        plain = make_dicom(tmp_path / "plain.dcm", RAMP, BitsStored=12, HighBit=11)
        window = make_dicom(tmp_path / "window.dcm", RAMP, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
        for path in (plain, window):
            assert read_image(path)[0].unique().numel() == 4096
        assert torch.equal(read_image(plain)[0], torch.from_numpy(RAMP / 4095).float())

    @pytest.mark.parametrize("window", [{}, {"WindowCenter": 1000, "WindowWidth": 600}])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
    def test_twins_in_monochrome_1_and_2(self, tmp_path: Path, window: dict[str, float], dtype: type) -> None:
        values = RAMP.astype(np.float64) * (255 / 4095) if dtype is np.uint8 else RAMP
        bright = values.astype(dtype)
        bits = 8 if dtype is np.uint8 else 12
        low, high = (0, 2**bits - 1) if dtype is not np.int16 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        bright = (bright + low).astype(dtype)
        options: dict[str, Any] = {"BitsStored": bits, "HighBit": bits - 1}
        first = make_dicom(tmp_path / "2.dcm", bright, **options, **window)
        twin = {"WindowCenter": low + high + 1 - 1000, "WindowWidth": 600} if window else {}
        dark = (low + high - bright.astype(np.int64)).astype(dtype)
        second = make_dicom(tmp_path / "1.dcm", dark, PhotometricInterpretation="MONOCHROME1", **options, **twin)
        assert torch.equal(read_image(first), read_image(second))

    def test_a_window_of_the_user_is_in_units_after_rescaling(self, tmp_path: Path) -> None:
        path = make_dicom(
            tmp_path / "a.dcm", RAMP, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=9
        )
        set_window("40,80")
        expected = np.clip((RAMP - 1024.0) / 80, 0, 1)
        assert torch.equal(read_image(path)[0], torch.from_numpy(expected).float())

    def test_eight_bits_are_those_of_a_picture(self, tmp_path: Path) -> None:
        pixels = np.arange(10, 110, dtype=np.uint8).reshape(10, 10)
        assert torch.equal(
            read_image(make_dicom(tmp_path / "a.dcm", pixels))[0] * 255, torch.from_numpy(pixels).float()
        )

    def test_voi_lut(self, tmp_path: Path) -> None:
        table = functional_group()
        table.LUTDescriptor, table.LUTData = [3, 100, 16], [0, 32768, 65535]
        table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
        pixels = np.array([[99, 100, 101, 102, 5000]], np.uint16)
        image = read_image(make_dicom(tmp_path / "a.dcm", pixels, VOILUTSequence=[table]))
        assert image[0].tolist() == [[0.0, 0.0, pytest.approx(32768 / 65535), 1.0, 1.0]]

    def test_exact_and_sigmoid_windows(self, tmp_path: Path) -> None:
        pixels, window = np.array([[0, 50, 100, 150, 200]], np.uint16), {"WindowCenter": 100, "WindowWidth": 200}
        exact = make_dicom(tmp_path / "exact.dcm", pixels, VOILUTFunction="LINEAR_EXACT", **window)
        assert read_image(exact)[0].tolist() == [[0.0, 0.25, 0.5, 0.75, 1.0]]
        sigmoid = make_dicom(tmp_path / "sigmoid.dcm", pixels, VOILUTFunction="SIGMOID", **window)
        expected = 1 / (1 + np.exp(-4 * (pixels - 100.0) / 200))
        np.testing.assert_allclose(read_image(sigmoid)[0].numpy(), expected, atol=1e-6)

    def test_padding_is_black_and_does_not_count(self, tmp_path: Path) -> None:
        pixels = np.full((4, 4), -2000, np.int16)
        pixels[1:3, 1:3] = [[0, 10], [20, 40]]
        image = read_image(make_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=-2000))
        assert image[0, 1:3, 1:3].tolist() == [[0.0, 0.25], [0.5, 1.0]]
        assert image[0, 0].tolist() == [0.0] * 4

    def test_frames_have_windows_of_their_own(self, tmp_path: Path) -> None:
        frames = np.stack([np.full((4, 4), 10, np.uint16), np.full((4, 4), 10, np.uint16)])
        windows = [{"WindowCenter": 10, "WindowWidth": 20, "VOILUTFunction": "LINEAR_EXACT"}, {"WindowCenter": 500}]
        windows[1] |= {"WindowWidth": 10}
        groups = [functional_group(FrameVOILUTSequence=window) for window in windows]
        shared = functional_group(PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -10})
        path = make_dicom(
            tmp_path / "a.dcm", frames, PerFrameFunctionalGroupsSequence=groups, SharedFunctionalGroupsSequence=[shared]
        )
        assert [read_image(one)[0, 0, 0].item() for one in slices_of(path)] == [0.5, 0.0]

    def test_frames_without_a_window_share_a_range(self, tmp_path: Path) -> None:
        frames = np.stack([np.full((30, 40), value, np.uint16) for value in (100, 200, 300)])
        path = make_dicom(tmp_path / "a.dcm", frames)
        assert slices_of(path) == [path / "0000", path / "0001", path / "0002"]
        assert [read_image(one)[0, 0, 0].item() for one in slices_of(path)] == [0.0, 0.5, 1.0]
        assert read_header(path / "0001").size == (30, 40)


class TestRefused:
    @pytest.mark.parametrize(
        ("attributes", "cause"),
        [
            ({"PixelData": None}, "no pixel data"),
            ({"RescaleSlope": 0, "RescaleIntercept": 5}, "Rescale Slope is zero"),
            ({"Rows": 300}, "truncated: it has"),
            ({"Rows": 60000, "Columns": 60000}, "3600.0 megapixels"),
            ({"Rows": 0}, "states the size"),
            ({"Rows": None}, "states no size"),
            ({"SOPClassUID": SegmentationStorage}, r"a result, no image \(Segmentation Storage\)"),
        ],
    )
    def test_the_message_names_file_and_cause(self, tmp_path: Path, attributes: dict[str, Any], cause: str) -> None:
        path = make_dicom(tmp_path / "scan.dcm", RAMP, **attributes)
        with pytest.raises(ImageFileError, match=rf"cannot read .*scan\.dcm: .*{cause}"):
            read_image(path)

    def test_a_header_that_promises_frames_lists_none(self, tmp_path: Path) -> None:
        path = make_dicom(tmp_path / "scan.dcm", RAMP, NumberOfFrames=2**31 - 1)
        with pytest.raises(ImageFileError, match=r"scan\.dcm: its header promises 2147483647 frames"):
            slices_of(path)
        assert search(tmp_path).images == [path]

    def test_a_preset_for_ct_on_another_modality(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        set_window("brain")
        for modality in ("CT", "MR"):
            read_image(make_dicom(tmp_path / f"{modality}.dcm", RAMP, Modality=modality))
        (message,) = caplog.messages
        assert "--window brain is meant for CT" in message
        assert "modality MR" in message

    def test_a_window_that_cannot_be_used_is_none(self, tmp_path: Path) -> None:
        expected = read_image(make_dicom(tmp_path / "a.dcm", RAMP))
        for window in ({"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": 5}, {"WindowWidth": 5}):
            assert torch.equal(read_image(make_dicom(tmp_path / "b.dcm", RAMP, **window)), expected)

    def test_values_below_zero_are_no_fault(self, tmp_path: Path) -> None:
        path = make_dicom(tmp_path / "a.dcm", RAMP, RescaleSlope=-1, RescaleIntercept=0)
        assert torch.equal(read_image(path)[0], torch.from_numpy(1 - RAMP / 4095).float())

    def test_a_truncated_file(self, tmp_path: Path) -> None:
        whole = make_dicom(tmp_path / "a.dcm", RAMP).read_bytes()
        (tmp_path / "b.dcm").write_bytes(whole[:-500])
        with pytest.raises(ImageFileError, match=r"b\.dcm: .*truncated"):
            read_image(tmp_path / "b.dcm")

    def test_a_syntax_that_is_not_supported(self, tmp_path: Path) -> None:
        path = make_dicom(tmp_path / "a.dcm", RAMP)
        file = pydicom.dcmread(path)
        file.file_meta.TransferSyntaxUID = MPEG2MPML
        file.PixelData = pydicom.encaps.encapsulate([b"\0" * 100])
        file["PixelData"].VR = "OB"
        file.save_as(path)
        with pytest.raises(ImageFileError, match=r"a\.dcm: a DICOM file with the transfer syntax MPEG2 Main Profile"):
            read_image(path)

    def test_a_missing_decoder_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = get_decoder(JPEG2000Lossless)
        monkeypatch.setattr(decoder, "_available", {})
        with pytest.raises(ImageFileError, match=r"JPEG 2000.*nothing that decodes them.*anomalib-mediclip\[dicom\]"):
            read_image(FILES / "MR_small_jp2klossless.dcm")

    def test_reports_are_no_images(self, tmp_path: Path) -> None:
        with pytest.raises(NoImageError, match="Basic Text SR Storage"):
            read_image(FILES / "reportsi.dcm")
        (tmp_path / "report").write_bytes((FILES / "reportsi.dcm").read_bytes())
        make_dicom(tmp_path / "image", RAMP)
        assert search(tmp_path).images == [tmp_path / "image"]

    def test_a_multi_frame_file_is_no_single_image(self, tmp_path: Path) -> None:
        path = make_dicom(tmp_path / "cine.dcm", np.stack([RAMP, RAMP]))
        with pytest.raises(ImageFileError, match=r"volume of 2 slices: give one of them, cine\.dcm/0000 to"):
            read_image(path)
        with pytest.raises(ImageFileError, match=r"there is no slice 2: cine\.dcm has 2"):
            read_image(path / "0002")

    def test_no_message_quotes_the_patient(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        secret = SECRET.encode()
        whole = make_dicom(tmp_path / "a.dcm", RAMP, BitsStored=12).read_bytes()
        said = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for end in range(132, len(whole) - len(RAMP.tobytes()) + 40, 7):
                for content in (whole[:end], whole[:end] + secret + whole[end:], whole.replace(b"DA", b"DS", 1)):
                    (tmp_path / "b.dcm").write_bytes(content)
                    try:
                        read_image(tmp_path / "b.dcm")
                    except ImageFileError as error:
                        said.append(str(error))
        assert len(said) > 100
        assert not [message for message in (*said, *caplog.messages, *map(str, caught)) if SECRET in message]


class TestSeries:
    # rows and columns of axial, coronal, sagittal, negated and oblique images
    DIRECTIONS = (
        ((1, 0, 0), (0, 1, 0)),
        ((1, 0, 0), (0, -1, 0)),
        ((-1, 0, 0), (0, -1, 0)),
        ((1, 0, 0), (0, 0, -1)),
        ((0, -1, 0), (0, 0, -1)),
        ((0.8, 0.6, 0), (0, 0, -1)),
    )

    @pytest.mark.parametrize(("rows", "columns"), DIRECTIONS)
    def test_a_ball_stays_where_it_is(self, tmp_path: Path, rows: tuple, columns: tuple) -> None:
        place = (5, 12, 30)
        volume = np.zeros((9, 24, 40), np.int16)
        volume[place] = 1000
        made = make_series(tmp_path, volume, rows, columns)
        first = pydicom.dcmread(made[place[0]])
        ball = np.array(first.ImagePositionPatient) + 0.75 * 30 * np.array(rows) + 1.5 * 12 * np.array(columns)
        (files,) = series_of(sorted(tmp_path.iterdir())).values()
        assert files == search(tmp_path).images
        images = np.stack([read_image(path)[0].numpy() for path in files])
        found = np.unravel_index(images.argmax(), images.shape)
        header = pydicom.dcmread(files[found[0]])
        position = np.array(header.ImagePositionPatient) + 0.75 * found[2] * np.array(rows)
        np.testing.assert_allclose(position + 1.5 * found[1] * np.array(columns), ball, atol=1e-6)
        normal = np.cross(rows, columns)
        along = [np.dot(normal, pydicom.dcmread(path).ImagePositionPatient) for path in files]
        assert along == sorted(along)

    def test_series_follow_each_other(self, tmp_path: Path) -> None:
        volume = np.zeros((3, 4, 4), np.int16)
        first = make_series(tmp_path / "a", volume, (1, 0, 0), (0, 1, 0))
        second = make_series(tmp_path / "b", volume, (1, 0, 0), (0, 1, 0))
        for index, path in enumerate(second):
            path.rename(tmp_path / "a" / f"{path.stem}b.dcm")
            second[index] = tmp_path / "a" / f"{path.stem}b.dcm"
        assert search(tmp_path).images == [*first, *second]
        assert list(series_of([*second, *first]).values()) == [second, first]
        (tmp_path / "a" / "notes.txt").write_text("none")
        (tmp_path / "a" / "report.dcm").write_bytes((FILES / "reportsi.dcm").read_bytes())
        assert sorted(series_of(tmp_path / "a").values()) == sorted([first, second])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "another orientation than"),
            ({"ImagePositionPatient": [0, 0, 0]}, "have the same position"),
            ({}, "another size than"),
        ],
    )
    def test_what_makes_no_volume_is_refused(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        common = {
            "SeriesInstanceUID": generate_uid(),
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, 0],
        }
        other = RAMP if change else RAMP[:32]
        files = [make_dicom(tmp_path / "1.dcm", RAMP, **common)]
        files.append(make_dicom(tmp_path / "2.dcm", other, **{**common, "ImagePositionPatient": [0, 0, 5], **change}))
        with pytest.raises(ImageFileError, match=message):
            series_of(files)
        assert search(tmp_path).images  # single images can be predicted all the same
