# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""DICOM images: single ones, frames of multi-frame files, and series of files in order of position.

Only the attributes in ``_ATTRIBUTES`` are read. None of them tells who the patient is, so that no message can. What
pydicom says about a damaged file may quote it, and is not passed on.
"""

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, config, dcmread
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from anomalib_mediclip.display import chosen_preset
from anomalib_mediclip.io.dicom_jpeg import plugins_of
from anomalib_mediclip.io.errors import ImageFileError, NoImageError, named, not_supported
from anomalib_mediclip.io.kinds import kind_of
from anomalib_mediclip.io.windows import Decoded, Window, sampling_step, window_of

logger = logging.getLogger(__name__)

EXTRA = "pip install 'anomalib-mediclip[dicom]'"

_ATTRIBUTES: list[Any] = [
    *("SOPClassUID", "Modality", "SeriesInstanceUID", "InstanceNumber"),
    *("ImagePositionPatient", "ImageOrientationPatient"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("PaletteColorLookupTableUID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
_PIXELS: list[Any] = ["PixelData", "FloatPixelData", "DoubleFloatPixelData"]
_GREY = ("MONOCHROME1", "MONOCHROME2")
_RESULTS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.30")  # SEG, map

_SMALLEST_FRAME = 8  # bytes, of frames that are not compressed; compressed ones have headers that are longer

_reading = threading.RLock()  # the validation of pydicom is a setting of the whole process


class Kind(NamedTuple):
    """What a DICOM file is, before its pixels are decoded.

    Attributes:
        shape (tuple[int, int, int]): Number of frames, height, width.
        series (str): Series Instance UID; empty without one.
        position (float | None): Place along the normal of the image, in millimetres; None if it is not known.
        orientation (tuple[float, ...]): Direction cosines of rows and columns; empty if they are not known.
        number (int): Instance Number, 0 without one.
    """

    shape: tuple[int, int, int]
    series: str
    position: float | None
    orientation: tuple[float, ...]
    number: int


def read_kind(path: Path) -> Kind:
    """Read what a DICOM file is.

    Args:
        path (Path): DICOM file.

    Returns:
        Kind: Frames, size, series and position.

    Raises:
        NoImageError: If the file is of a kind without an image, or a result such as a segmentation.
        ImageFileError: If the header is damaged or states no size.
    """
    header = _read_header(path)
    with _explained("the header of this DICOM file is damaged"):
        orientation = tuple(float(value) for value in header.get("ImageOrientationPatient") or ())
        origin = tuple(float(value) for value in header.get("ImagePositionPatient") or ())
        is_placed = len(orientation) == 6 and len(origin) == 3 and np.isfinite([*orientation, *origin]).all()
        number = header.get("InstanceNumber")
        return Kind(
            shape=_shape(header),
            series=str(header.get("SeriesInstanceUID") or ""),
            position=float(np.dot(_normal(orientation), origin)) if is_placed else None,
            orientation=orientation if is_placed else (),
            number=int(number) if number is not None else 0,
        )


class DicomFrames:
    """Frames of a DICOM file, decoded one at a time.

    Args:
        path (Path): DICOM file.

    Attributes:
        shape (tuple[int, int, int]): Number of frames, height, width.

    Raises:
        NoImageError: If the file is of a kind without an image.
        ImageFileError: If the header is damaged, or the pixels are in a form that cannot be decoded here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = _read_header(path)
        with _explained("the header of this DICOM file is damaged"):
            self.shape = _shape(self._header)
        self._syntax = _syntax(self._header)
        self._decoders = _decoders_of(self._syntax)
        self._range: Window | None = None

    def read(self, index: int, window: Window | None) -> Decoded:
        """Decode a frame.

        Args:
            index (int): Number of the frame, from 0.
            window (Window | None): Range of grey images to show, in the unit of the file after rescaling. None takes
                the window of the file, and without one the range of the image, or of all frames together.

        Returns:
            Decoded: Pixels ``(H, W, 1 or 3)``, where larger is brighter.

        Raises:
            ImageFileError: If the pixel data are missing, truncated, damaged or of a kind that is not supported.
        """
        stored = self._stored(index)
        if self._header.get("PhotometricInterpretation") == "PALETTE COLOR":
            with _explained("the palette of this DICOM file is damaged"):
                coloured = apply_color_lut(stored, self._header)
            return Decoded(
                coloured, None if coloured.dtype == np.uint8 else Window(0, float(np.iinfo(coloured.dtype).max))
            )
        if stored.ndim == 3:
            return Decoded(stored)
        return self._grey(stored, index, window)

    def _grey(self, stored: npt.NDArray[Any], index: int, window: Window | None) -> Decoded:
        """Rescale a grey frame, and find its window."""
        values, top = self._rescaled(stored, index)
        mapped = None if window else _mapped(self._header, index, values)
        if mapped is not None:
            values, top, window = mapped, 1.0, Window(0, 1)
        window = window or _window(self._header, index)
        if window is None and values.dtype != np.uint8 and self.shape[0] > 1:
            window = self._range = self._range or self._range_of_all()
        if self._header.get("PhotometricInterpretation") == "MONOCHROME1":
            values = top - values if values.dtype == np.uint8 else top - values.astype(np.float64)
            window = window and Window(top - window.high, top - window.low)
        _warn_of_preset(str(self._header.get("Modality") or "CT"), chosen_preset())
        return Decoded(self._without_padding(values, stored)[..., None], window)

    def _rescaled(self, stored: npt.NDArray[Any], index: int) -> tuple[npt.NDArray[Any], Any]:
        """Apply the modality LUT, and return the highest value that it can give too."""
        attributes = _of_frame(self._header, index, "PixelValueTransformationSequence")
        _check_slope(attributes)
        with _explained("the modality LUT of this DICOM file is damaged"):
            values = apply_modality_lut(stored, attributes)
            ends = apply_modality_lut(_ends(self._header, stored.dtype), attributes)
        # 8 bits that are not rescaled stay what they are, as in a picture
        keeps = stored.dtype == np.uint8 and self._header.get("BitsStored") == 8 and np.array_equal(values, stored)
        return (stored, np.uint8(255)) if keeps else (values, float(ends.max()))

    def _without_padding(self, values: npt.NDArray[Any], stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Blacken pixels that only fill the frame: NaN, which counts for no range, or 0 in 8 bits."""
        padding = self._header.get("PixelPaddingValue")
        if not isinstance(padding, int):
            return values
        limit = self._header.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((padding, limit if isinstance(limit, int) else padding))
        is_padding = (stored >= low) & (stored <= high)
        if not is_padding.any() or is_padding.all():
            return values
        return np.where(is_padding, values.dtype.type(0) if values.dtype == np.uint8 else np.nan, values)

    def _range_of_all(self) -> Window | None:
        """Return the range of all frames together, from a part of their pixels."""
        step = sampling_step(self.shape)
        frames = range(0, self.shape[0], step)
        samples = [self._sample(index, step) for index in frames]
        return window_of(np.concatenate(samples))

    def _sample(self, index: int, step: int) -> npt.NDArray[np.float64]:
        """Return some rescaled pixels of a frame, without padding."""
        stored = self._stored(index)[::step, ::step]
        values = self._rescaled(stored, index)[0]
        return self._without_padding(values, stored).astype(np.float64).ravel()

    def _stored(self, index: int) -> npt.NDArray[Any]:
        """Decode the stored pixels of a frame."""
        _check_length(self._path, self._header, self._syntax)
        is_whole = self.shape[0] == 1 or self._syntax.is_deflated
        source: Any = _read_whole(self._path, self._syntax) if is_whole else self._path
        options: dict[str, Any] = {} if is_whole else {"transfer_syntax_uid": self._syntax}
        pixels, failure = None, ""
        for decoder in self._decoders:
            try:
                pixels = pixel_array(source, index=index, decoding_plugin=decoder, **options)
                break
            except Exception as error:  # decoders raise many kinds, and may quote what is in the file
                failure = type(error).__name__
        if pixels is None:
            _refuse_missing_pixels(self._path)
            raise ImageFileError(_undecodable(self._syntax, failure))
        expected = self.shape[1:] if self._header.get("SamplesPerPixel", 1) == 1 else (*self.shape[1:], 3)
        if pixels.shape != expected:
            msg = not_supported(f"a DICOM image of the shape {'x'.join(map(str, pixels.shape))}")
            raise ImageFileError(msg)
        return pixels


@lru_cache
def _warn_of_preset(modality: str, preset: str | None) -> None:
    """Warn once if a preset for CT is used on anything else."""
    if preset is not None and modality != "CT":
        logger.warning(
            "--window %s is meant for CT, in Hounsfield units, and some images are of the modality %s: give --window "
            "CENTRE,WIDTH in their unit, or leave it out",
            preset,
            modality,
        )


def series_of(files: str | Path | Sequence[str | Path]) -> dict[str, list[Path]]:
    """Group DICOM files by series, in order of position along the normal of the images.

    Args:
        files (str | Path | Sequence[str | Path]): DICOM files of one image each, or their folder; other files in it are
            left out.

    Returns:
        dict[str, list[Path]]: Files by Series Instance UID, in the order in which the series first appear. A file
            without a series is one of its own, under its path. Images without a position are in order of their Instance
            Number.

    Raises:
        ImageFileError: If the images of a series differ in size or orientation, if two have the same position, or if a
            file is damaged.
    """
    kinds = {}
    for path in _dicom_in(Path(files)) if isinstance(files, str | Path) else map(Path, files):
        with named(path):
            kinds[path] = read_kind(path)
    groups: dict[str, list[Path]] = {}
    for path, kind in kinds.items():
        groups.setdefault(kind.series or str(path), []).append(path)
    for group in groups.values():
        group.sort(key=lambda path: place(kinds[path]))
        _check_series(group, kinds)
    return groups


def _dicom_in(folder: Path) -> Iterator[Path]:
    """Yield the DICOM images of a folder."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and kind_of(path) == "dicom":
            try:
                read_kind(path)
            except NoImageError:
                continue
            except ImageFileError:
                pass  # whoever reads it says what is wrong
            yield path


def place(kind: Kind) -> tuple[bool, float, int]:
    """Return the key that sorts the images of a series: by position, or by Instance Number where there is none."""
    return kind.position is None, kind.position or 0.0, kind.number


def _check_series(files: list[Path], kinds: dict[Path, Kind]) -> None:
    """Refuse files that make no volume."""
    first = kinds[files[0]]
    for before, path in pairwise(files):
        kind = kinds[path]
        differences = {
            "size": kind.shape != first.shape,
            "orientation": not _same_direction(kind.orientation, first.orientation),
        }
        for name, differs in differences.items():
            if differs:
                msg = f"{path} has another {name} than {files[0]} in the same series: put them in separate folders"
                raise ImageFileError(msg)
        if kind.position is not None and math.isclose(kind.position, kinds[before].position or 0.0, abs_tol=1e-3):
            msg = (
                f"{path} and {before} of one series have the same position, as in a series over time: keep the files "
                "of one time in a folder of their own"
            )
            raise ImageFileError(msg)


def _same_direction(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Tell whether direction cosines are the same up to rounding."""
    return len(first) == len(second) and bool(np.allclose(first, second, atol=1e-3))


def _normal(orientation: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Return the normal of an image from the directions of its rows and columns."""
    return np.cross(orientation[:3], orientation[3:])


@contextmanager
def _explained(cause: str) -> Iterator[None]:
    """Turn whatever pydicom raises into a sentence that quotes no attribute."""
    try:
        yield
    except ImageFileError:
        raise
    except Exception as error:  # pydicom raises many kinds
        msg = f"{cause} ({type(error).__name__}); copy it again from where it came"
        raise ImageFileError(msg) from None


@contextmanager
def _private(cause: str) -> Iterator[None]:
    """Let pydicom read without warnings about values, which it would quote."""
    with _explained(cause), _reading, config.disable_value_validation():
        yield


def _read_header(path: Path) -> Dataset:
    """Read the attributes that say what the pixels are."""
    with _private("the header of this DICOM file is damaged"):
        header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=_ATTRIBUTES)
        _drop_damaged(header)
        kind = UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""))
        name = kind.name if kind.name != kind else ""
    if "Rows" not in header and name and "Image" not in name:
        msg = f"it is a DICOM object without an image ({name}): give the files of the images"
        raise NoImageError(msg)
    if kind in _RESULTS:
        msg = f"it is a result, no image ({name}): give the files of the images; masks are read from NIfTI and PNG"
        raise NoImageError(msg)
    if "Rows" not in header or "Columns" not in header:
        msg = "it looks like DICOM but states no size of an image: its header is damaged, or it is no DICOM file"
        raise ImageFileError(msg)
    with _explained("the header of this DICOM file is damaged"):
        frames, size = _shape(header)[0], path.stat().st_size
    if frames > 1 and frames * _SMALLEST_FRAME > size:
        msg = f"its header promises {frames} frames, more than its {size} bytes can hold: it is truncated or damaged"
        raise ImageFileError(msg)
    return header


def _read_whole(path: Path, syntax: UID) -> Dataset:
    """Read a file with its pixels, which pydicom finds in more files than by seeking them."""
    with _private("the content of this DICOM file is truncated or damaged"):
        found = dcmread(path, force=True, specific_tags=[*_ATTRIBUTES, *_PIXELS])
        if not getattr(found.file_meta, "TransferSyntaxUID", None):
            found.file_meta.TransferSyntaxUID = syntax
        return found


def _drop_damaged(header: Dataset) -> None:
    """Read all values, and drop those that are not what their type allows, while pydicom is kept from quoting them."""
    for tag in list(header.keys()):
        try:
            header[tag]
        except Exception:  # pydicom raises many kinds; what is missed is said later
            del header[tag]


def _shape(header: Dataset) -> tuple[int, int, int]:
    """Return frames, height and width."""
    frames = header.get("NumberOfFrames")
    shape = (int(frames) if frames else 1, int(header.Rows), int(header.Columns))
    if min(shape) < 1:
        msg = f"its header states the size {shape[2]}x{shape[1]} and {shape[0]} frames: the header is damaged"
        raise ImageFileError(msg)
    return shape


def _syntax(header: Dataset) -> UID:
    """Return the transfer syntax, guessed where the file does not state it."""
    stated = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if stated:
        return UID(str(stated))
    is_implicit, is_little = header.original_encoding
    if is_little is False:
        return UID("1.2.840.10008.1.2.2")
    return ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian


def _decoders_of(syntax: UID) -> tuple[str, ...]:
    """Return the decoders of pydicom for a transfer syntax, and refuse one that nothing here decodes."""
    if not syntax.is_encapsulated:
        return ("",)
    try:
        decoders = plugins_of(syntax)
    except NotImplementedError:
        msg = not_supported(f"a DICOM file with the transfer syntax {_name(syntax)}")
        raise ImageFileError(msg) from None
    if not decoders:
        msg = f"its pixels are compressed ({_name(syntax)}) and nothing that decodes them is installed: {EXTRA}"
        raise ImageFileError(msg)
    return decoders


def _name(syntax: UID) -> str:
    """Return the name of a transfer syntax, or that it is unknown."""
    return syntax.name if syntax.name != syntax else "of a private or unknown kind"


def _check_length(path: Path, header: Dataset, syntax: UID) -> None:
    """Refuse pixels that are not compressed and larger than their file, before memory is taken for them."""
    if syntax.is_private or syntax.is_compressed or syntax.is_deflated:
        return
    bits = header.get("BitsAllocated") or 8
    samples = header.get("SamplesPerPixel") or 1
    frames, height, width = _shape(header)
    needed, size = frames * height * width * int(samples) * int(bits) // 8, path.stat().st_size
    is_halved = header.get("PhotometricInterpretation") == "YBR_FULL_422"
    if (needed * 2 // 3 if is_halved else needed) > size:
        _refuse_missing_pixels(path)
        msg = (
            f"truncated: it has {size} bytes, its header promises {needed} of pixels; copy it again from where it came"
        )
        raise ImageFileError(msg)


def _refuse_missing_pixels(path: Path) -> None:
    """Say so if a file ends before its pixels."""
    with _private("the content of this DICOM file is truncated or damaged"):
        found = dcmread(path, force=True, specific_tags=_PIXELS, defer_size=1024)
        is_missing = not any(name in found for name in _PIXELS)
    if is_missing:
        msg = "it has no pixel data: it is truncated, or only the header was exported; export it again with its pixels"
        raise ImageFileError(msg)


def _undecodable(syntax: UID, failure: str) -> str:
    """Return the message about pixels that cannot be decoded."""
    cause = f"its pixel data cannot be decoded ({_name(syntax)}, {failure})"
    if not syntax.is_encapsulated:
        return f"{cause}: truncated or damaged; copy it again from where it came"
    return (
        f"{cause}: it is damaged, or needs another decoder. Install all of them ({EXTRA}), else decompress the file by "
        "dcmdjpeg or gdcmconv, or copy it again from where it came"
    )


def _of_frame(header: Dataset, index: int, name: str) -> Dataset:
    """Return the item of a functional group that holds for a frame; the header if there is none."""
    with _explained("the functional groups of this DICOM file are damaged"):
        per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
        shared = header.get("SharedFunctionalGroupsSequence") or []
        for group in (*per_frame[index : index + 1], *shared[:1]):
            if group.get(name):
                return cast("Dataset", group[name].value[0])
    return header


def _check_slope(attributes: Dataset) -> None:
    """Refuse a rescaling that leaves nothing to see."""
    with _explained("the rescaling of this DICOM file is damaged"):
        slope, intercept = (attributes.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
        factors = [float(value) for value in (slope, intercept) if value is not None]
    if (slope is not None and float(slope) == 0) or not np.isfinite(factors).all():
        msg = "its Rescale Slope is zero or no number, so that all pixels would be one value: correct the header"
        raise ImageFileError(msg)


def _ends(header: Dataset, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the lowest and the highest number that can be stored."""
    if dtype.kind == "f":
        return np.array([0, 1], dtype)
    bits = min(int(header.get("BitsStored") or dtype.itemsize * 8), dtype.itemsize * 8)
    low, high = (0, 2**bits - 1) if dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return np.array([low, high], dtype)


def _mapped(header: Dataset, index: int, values: npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
    """Map values to [0, 1] where a file asks for more than a linear window, by a table or a sigmoid; None otherwise."""
    if header.get("VOILUTSequence"):
        with _explained("the VOI LUT of this DICOM file is damaged"):
            return _looked_up(header, values)
    attributes = _of_frame(header, index, "FrameVOILUTSequence")
    centre, width = _centre_and_width(attributes)
    if attributes.get("VOILUTFunction") != "SIGMOID" or width <= 0:
        return None
    return np.asarray(1 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width)))  # PS3.3 C.11.2.1.3.1


def _looked_up(header: Dataset, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Apply the first VOI LUT of a file (PS3.3 C.11.2.1.1).

    pydicom's own function counts the entries of a table of 8 bits in 8 bits, and takes no rescaled values.
    """
    item = header.VOILUTSequence[0]
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    is_little = header.original_encoding[1] is not False
    data = item.LUTData
    table = np.frombuffer(data, "<u2" if is_little else ">u2") if isinstance(data, bytes) else np.array(data)
    first = first - 2**16 if first >= 2**15 and values.min() < 0 else first  # read as unsigned, meant as signed
    index = np.clip(np.rint(values.astype(np.float64)) - first, 0, min(count or 2**16, len(table)) - 1)
    return np.asarray(np.clip(table[index.astype(np.int64)] / (2**bits - 1), 0, 1), dtype=np.float64)


def _window(header: Dataset, index: int) -> Window | None:
    """Return the first window of a file (PS3.3 C.11.2.1.2); None without one that can be used."""
    attributes = _of_frame(header, index, "FrameVOILUTSequence")
    centre, width = _centre_and_width(attributes)
    is_exact = attributes.get("VOILUTFunction") == "LINEAR_EXACT"
    if not width >= (np.finfo(float).tiny if is_exact else 1):
        return None
    shift, shown = (0, width) if is_exact else (0.5, width - 1)
    return Window(centre - shift - shown / 2, centre - shift + shown / 2)


def _centre_and_width(attributes: Dataset) -> tuple[float, float]:
    """Return centre and width of the first window, a width of 0 if there is none or if it is damaged."""
    try:
        centre, width = (_first(attributes[name].value) for name in ("WindowCenter", "WindowWidth"))
    except Exception:  # missing, empty, no numbers
        return 0.0, 0.0
    return (centre, width) if math.isfinite(centre) and math.isfinite(width) else (0.0, 0.0)


def _first(value: Any) -> float:
    """Return the first of one or several numbers."""
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
