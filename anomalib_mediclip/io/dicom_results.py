# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Results of DICOM images as DICOM: the predicted mask as a Segmentation, the anomaly map as a Parametric Map.

Both are written by highdicom (extra ``dicom``). They belong to the patient and the study of the source, refer to its
images and to its frame of reference, and say in their descriptions that they are not for diagnostic use. The identity
of the patient is in these objects because an archive files them by it. It is in nothing else that is written here, and
neither in errors nor in logs: highdicom and pydicom would print values that they find wrong.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from anomalib_mediclip import __version__
from anomalib_mediclip.atomic import written_beside
from anomalib_mediclip.io.temporary import in_temporary_file
from anomalib_mediclip.quiet import quiet

logger = logging.getLogger(__name__)

LARGEST_MAP = 2**25  # values of a Parametric Map: 134 MB of float32
NOTICE = "not for diagnostic use"
PACKAGE = "highdicom"
INSTALL = "pip install 'anomalib-mediclip[dicom]'"

# What identifies an object, and what may be empty but must be there (types 1 and 2 of the standard).
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
_CHECKED: dict[str, Callable[[Any], Any]] = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_SEXES = ("M", "F", "O", "U")


class NotWrittenError(ValueError):
    """A result that cannot be written; the message says why and what to do, and holds no value of an attribute."""


class Algorithm(NamedTuple):
    """What made a result.

    Attributes:
        model (str): Name of the model, such as ``"MediCLIP"``.
        identifier (str): What tells its weights from others, such as the hash of the checkpoint; at most 64 characters.
    """

    model: str
    identifier: str


def check_highdicom() -> None:
    """Check that highdicom is installed.

    Raises:
        NotWrittenError: If it is not; the message says how to install it.
    """
    if find_spec(PACKAGE) is None:
        msg = f"DICOM results need the package {PACKAGE}, which is not installed: {INSTALL}"
        raise NotWrittenError(msg)


def read_sources(paths: Sequence[Path]) -> list[Dataset]:
    """Read what results take over from their source images, without the pixels.

    Attributes that must be there but may be empty are added where they are missing. Dates, times and a sex that the
    standard does not allow are made empty.

    Args:
        paths (Sequence[Path]): Files of one series in the order of their slices, or one file.

    Returns:
        list[Dataset]: Headers in the same order.

    Raises:
        NotWrittenError: If a file lacks what identifies it, as after a careless removal of identifiers.
    """
    with _discreet():
        return [_read_source(path) for path in paths]


def _read_source(path: Path) -> Dataset:
    """Read the header of a source image."""
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    missing = [keyword for keyword in _IDENTIFIERS if not header.get(keyword)]
    if missing:
        msg = f"{path} lacks {', '.join(missing)}, by which a DICOM result refers to its source"
        raise NotWrittenError(msg)
    if not str(header.get("NumberOfFrames") or 1).strip().isdecimal():
        msg = f"{path} has a number of frames that is no number"
        raise NotWrittenError(msg)
    for keyword in _MAY_BE_EMPTY:
        if not _is_valid(keyword, header.get(keyword)):
            setattr(header, keyword, "")
    return header


def _is_valid(keyword: str, value: Any) -> bool:
    """Tell whether highdicom will take the value of an attribute."""
    if value is None:
        return False
    try:
        _CHECKED.get(keyword, str)(value)
    except ValueError:
        return False
    return keyword != "PatientSex" or not value or value in _SEXES


def is_located(sources: Sequence[Dataset]) -> bool:
    """Tell whether images have a place in the patient: a frame of reference, positions and the size of pixels.

    Args:
        sources (Sequence[Dataset]): Headers from :func:`read_sources`.

    Returns:
        bool: True for CT, MR and the like; False for radiographs, ultrasound and photographs.
    """
    return all(_is_located(source) for source in sources)


def _is_located(source: Dataset) -> bool:
    """Tell whether a file says where each of its frames lies; several frames need functional groups for that."""
    if int(source.get("NumberOfFrames") or 1) > 1 and "SharedFunctionalGroupsSequence" not in source:
        return False
    needed = (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    )
    return bool(source.get("FrameOfReferenceUID")) and all(_of_frame(source, 0, *names) for names in needed)


def _of_frame(source: Dataset, frame: int, group: str, keyword: str) -> Any:
    """Return an attribute of a frame: of the file itself, or in a multi-frame file of the frame or of all frames."""
    if "SharedFunctionalGroupsSequence" not in source:
        return source.get(keyword)
    frames = source.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    for groups in (frames[frame], source.SharedFunctionalGroupsSequence[0]):
        if groups.get(group):
            return groups.get(group)[0].get(keyword)
    return None


def write_segmentation(
    path: Path, sources: Sequence[Dataset], mask: npt.NDArray[np.uint8], algorithm: Algorithm
) -> None:
    """Write a predicted mask as a binary DICOM Segmentation with one segment; frames without a lesion are left out.

    Args:
        path (Path): File to write; its folder is made.
        sources (Sequence[Dataset]): Headers from :func:`read_sources`: a file for every slice, or one multi-frame file.
        mask (np.ndarray): Mask ``(slices, rows, columns)`` on the pixels of the source, uint8, 1 in the lesion.
        algorithm (Algorithm): What made it.

    Raises:
        NotWrittenError: If highdicom is missing, the mask is empty, or the source does not allow a Segmentation.
        OSError: If the file cannot be written.
    """

    def make() -> Dataset:
        if not mask.any():
            msg = "the predicted mask is empty, and a Segmentation has at least one segment with pixels"
            raise NotWrittenError(msg)
        if len(mask) > 1 and not is_located(sources):
            msg = "several frames without a frame of reference cannot share a Segmentation"
            raise NotWrittenError(msg)
        import highdicom as hd
        from pydicom.sr.codedict import codes

        segment = hd.seg.SegmentDescription(
            segment_number=1,
            segment_label="predicted anomaly",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name=f"anomalib-mediclip {algorithm.model}",
                family=codes.DCM.ArtificialIntelligence,
                version=__version__,
            ),
        )
        result = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=mask if len(mask) > 1 else mask[0],
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[segment],
            content_label="ANOMALY_MASK",
            **_described(sources[0], algorithm, "Predicted anomaly", 1),
        )
        if not is_located(sources):
            result.PatientOrientation = sources[0].get("PatientOrientation", "")
        return result

    _write(path, make)


def write_parametric_map(
    path: Path, sources: Sequence[Dataset], maps: Sequence[npt.NDArray[np.float32]], algorithm: Algorithm
) -> None:
    """Write an anomaly map as a DICOM Parametric Map of float32, which holds the values as they are.

    The map has the pixels of the source, unless these are more than 33 million. A larger source is divided by the
    smallest whole number that brings it below: the map then has fewer and larger pixels over the same area, which
    viewers lay over the source by its position. A series of 500 slices of 512 x 512 gets a map of 256 x 256.

    Args:
        path (Path): File to write; its folder is made.
        sources (Sequence[Dataset]): Headers from :func:`read_sources`: a file for every slice, or one multi-frame file.
        maps (Sequence[np.ndarray]): A map ``(h, w)`` of every slice in [0, 1], float32, of any size; it covers the
            whole slice.
        algorithm (Algorithm): What made it.

    Raises:
        NotWrittenError: If highdicom is missing, or the images have no place in the patient, which the standard asks
            for (radiographs, ultrasound, photographs).
        OSError: If the file cannot be written.
    """

    def make(files: ExitStack) -> Dataset:
        if not is_located(sources):
            msg = "the images have no frame of reference or no position in it, which a Parametric Map must have"
            raise NotWrittenError(msg)
        import highdicom as hd
        from pydicom.sr.codedict import codes

        class Described(hd.pm.ParametricMap):
            """A Parametric Map that keeps one value of a frame: highdicom would hold all of them three times."""

            def _encode_pixels_native(self, planes: npt.NDArray[np.float32]) -> bytes:
                return planes.reshape(-1)[:1].tobytes()

        count, rows, columns = _shape_of_map(len(maps), int(sources[0].Rows), int(sources[0].Columns))
        numbers = np.arange(count, dtype=np.float32)[:, None, None]  # of the slices, in place of their values
        mapping = hd.pm.RealWorldValueMapping(
            lut_label="ANOMALY",
            lut_explanation="calibrated anomaly, threshold 0.5",
            unit=codes.UCUM.NoUnits,
            value_range=(0.0, 1.0),
            slope=1.0,
            intercept=0.0,
        )
        result = Described(
            source_images=sources,
            pixel_array=np.broadcast_to(numbers, (count, rows, columns)),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
            content_label="ANOMALY_MAP",
            **_described(sources[0], algorithm, "Anomaly map", 2),
            **_placed(sources, count, rows, columns),
        )
        # highdicom has an order of its own for frames
        order = np.frombuffer(result.FloatPixelData, np.float32).reshape(count, -1)[:, 0].astype(int)
        frames = (resized(maps[number], rows, columns).astype("<f4", copy=False).tobytes() for number in order)
        result.FloatPixelData = files.enter_context(in_temporary_file(frames, NotWrittenError))
        result.Laterality = sources[0].get("Laterality", "")  # highdicom leaves it out, for a Parametric Map alone
        return result

    with ExitStack() as files:
        _write(path, lambda: make(files))


def resized(anomaly_map: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Resize a map to a number of pixels over the same area, linearly.

    Args:
        anomaly_map (np.ndarray): Map ``(h, w)``, float32.
        rows (int): Number of rows.
        columns (int): Number of columns.

    Returns:
        np.ndarray: Map ``(rows, columns)``, float32.
    """
    return np.asarray(cv2.resize(anomaly_map, (columns, rows), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _shape_of_map(slices: int, rows: int, columns: int) -> tuple[int, int, int]:
    """Return slices, rows and columns of the map of a source of this size."""
    factor = 1
    while slices * (rows // factor) * (columns // factor) > LARGEST_MAP:
        factor += 1
    return slices, max(1, rows // factor), max(1, columns // factor)


def _placed(sources: Sequence[Dataset], slices: int, rows: int, columns: int) -> dict[str, Any]:
    """Say where the pixels of a map lie; nothing if they are those of the source."""
    source = sources[0]
    if (rows, columns) == (source.Rows, source.Columns):
        return {}
    import highdicom as hd

    down, right = (float(value) for value in _of_frame(source, 0, "PixelMeasuresSequence", "PixelSpacing"))
    orientation = np.array(_of_frame(source, 0, "PlaneOrientationSequence", "ImageOrientationPatient"), dtype=float)
    row_step, column_step = source.Rows / rows, source.Columns / columns  # in pixels of the source
    # from the centre of the first pixel of the source to that of the map
    shift = orientation[3:] * down * (row_step - 1) / 2 + orientation[:3] * right * (column_step - 1) / 2
    frames = [(source, frame) for frame in range(slices)] if len(sources) == 1 else [(one, 0) for one in sources]
    positions = [_of_frame(*frame, "PlanePositionSequence", "ImagePositionPatient") for frame in frames]
    return {
        "pixel_measures": hd.PixelMeasuresSequence(
            pixel_spacing=(down * row_step, right * column_step),
            slice_thickness=_of_frame(source, 0, "PixelMeasuresSequence", "SliceThickness"),
            spacing_between_slices=_of_frame(source, 0, "PixelMeasuresSequence", "SpacingBetweenSlices"),
        ),
        "plane_orientation": hd.PlaneOrientationSequence("PATIENT", tuple(orientation)),
        "plane_positions": [
            hd.PlanePositionSequence("PATIENT", tuple(np.array(position, dtype=float) + shift))
            for position in positions
        ],
    }


def _described(source: Dataset, algorithm: Algorithm, what: str, number: int) -> dict[str, Any]:
    """Return the arguments that every result has: new identifiers, software and descriptions."""
    import highdicom as hd

    return {
        "series_instance_uid": hd.UID(),
        "series_number": 100 * abs(int(source.get("SeriesNumber") or 0)) + number,
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": "anomalib-mediclip",
        "manufacturer_model_name": algorithm.model,
        "software_versions": __version__,
        "device_serial_number": algorithm.identifier[:64],
        "series_description": f"{what} ({algorithm.model}), {NOTICE}"[:64],
        "content_description": f"{what}, {NOTICE}",
    }


def _write(path: Path, make: Callable[[], Dataset]) -> None:
    """Make an object and write it."""
    check_highdicom()
    with _discreet():
        result = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as unfinished:
            result.save_as(unfinished)


def _place(error: BaseException) -> str:
    """Say where an error was raised, for a report of it: file and line, without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"in {Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"


@contextmanager
def _discreet() -> Iterator[None]:
    """Keep pydicom and highdicom from printing values of attributes that they find wrong, and from raising them."""
    with warnings.catch_warnings(), quiet("pydicom", PACKAGE), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        try:
            yield
        except (OSError, NotWrittenError):
            raise
        except Exception as error:  # of many kinds, whose texts may hold values of the patient
            msg = f"the source images lack what the standard asks for ({type(error).__name__} {_place(error)})"
            raise NotWrittenError(msg) from None
