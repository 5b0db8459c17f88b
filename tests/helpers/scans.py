# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CT as a scanner sends it, with all that the standard asks for, and where its pixels lie in the patient."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, generate_uid

from tests.helpers.volumes import SECRET, functional_group, make_dicom

SPACING = (1.5, 0.8)  # mm between rows and between columns
DISTANCE = 2.0  # mm between slices
ORIGIN = np.array([-40.0, 25.0, 110.0])
# Cosines of rows and columns.
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "negated columns": (1, 0, 0, 0, -1, 0),
    "negated rows": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (*(0.8, 0.6, 0.0), *(0.36, -0.48, -0.8)),
}
_COMPLETE: dict[str, Any] = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "PatientSex": "F",
    "StudyID": "1",
    "StudyDate": "20200101",
    "StudyTime": "120000",
    "ReferringPhysicianName": f"{SECRET}^Doctor",
    "SeriesNumber": 3,
    "SeriesDescription": SECRET,
    "StudyDescription": SECRET,
    "Manufacturer": "none",
    "KVP": "120",
    "AcquisitionNumber": "1",
    "PositionReferenceIndicator": "",
    "RescaleIntercept": -1024,
    "RescaleSlope": 1,
    "RescaleType": "HU",
    "WindowCenter": 40,
    "WindowWidth": 400,
}


def write_series(folder: Path, volume: npt.NDArray[np.int16], orientation: Sequence[float]) -> list[Path]:
    """Write a volume ``(slices, rows, columns)`` in HU as a series, one file a slice; files are not in their order.

    Args:
        folder (Path): Folder to make.
        volume (np.ndarray): Volume; slice 0 is the first along the normal of the planes.
        orientation (Sequence[float]): Row and column cosines.

    Returns:
        list[Path]: Files in the order of the slices.
    """
    shared = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    return [
        make_dicom(
            folder / f"image{(index * 7) % len(volume):03d}",  # 7 and the number of slices have no common divisor
            _stored(pixels),
            **(_COMPLETE | shared),
            InstanceNumber=index + 1,
            ImageOrientationPatient=list(orientation),
            ImagePositionPatient=position,
            PixelSpacing=list(SPACING),
            SliceThickness=DISTANCE,
        )
        for index, (pixels, position) in enumerate(zip(volume, _positions(len(volume), orientation), strict=True))
    ]


def write_multi_frame(path: Path, volume: npt.NDArray[np.int16], orientation: Sequence[float]) -> Path:
    """Write a volume ``(slices, rows, columns)`` in HU as one Enhanced CT file.

    Args:
        path (Path): File to write.
        volume (np.ndarray): Volume.
        orientation (Sequence[float]): Row and column cosines.

    Returns:
        Path: The file.
    """
    shared = functional_group(
        PixelMeasuresSequence={"PixelSpacing": list(SPACING), "SliceThickness": DISTANCE},
        PlaneOrientationSequence={"ImageOrientationPatient": list(orientation)},
        PixelValueTransformationSequence={"RescaleIntercept": -1024, "RescaleSlope": 1, "RescaleType": "HU"},
        FrameVOILUTSequence={"WindowCenter": 40, "WindowWidth": 400},
    )
    frames = [
        functional_group(PlanePositionSequence={"ImagePositionPatient": position})
        for position in _positions(len(volume), orientation)
    ]
    return make_dicom(
        path,
        _stored(volume),
        **_COMPLETE,
        SOPClassUID=EnhancedCTImageStorage,
        FrameOfReferenceUID=generate_uid(),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )


def _stored(volume: npt.NDArray[np.int16]) -> npt.NDArray[np.uint16]:
    """Return the numbers that are stored for values in HU."""
    return (volume.astype(int) + 1024).astype(np.uint16)


def _positions(slices: int, orientation: Sequence[float]) -> list[list[float]]:
    """Return the positions of slices along their normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [[round(float(value), 6) for value in ORIGIN + index * DISTANCE * normal] for index in range(slices)]


def position_in_patient(image: Dataset, frame: int, row: float, column: float) -> npt.NDArray[np.float64]:
    """Return where the centre of a pixel lies, in mm.

    Args:
        image (Dataset): File of a slice, or multi-frame file.
        frame (int): Frame of a multi-frame file.
        row (float): Row.
        column (float): Column.

    Returns:
        np.ndarray: Coordinates ``(3,)`` of the patient.
    """
    if "SharedFunctionalGroupsSequence" in image:
        shared, own = image.SharedFunctionalGroupsSequence[0], image.PerFrameFunctionalGroupsSequence[frame]
        position = own.PlanePositionSequence[0].ImagePositionPatient
        cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    else:
        position, cosines, spacing = image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing
    along = np.array(cosines, dtype=float)
    place = np.array(position, dtype=float) + along[:3] * float(spacing[1]) * column
    return place + along[3:] * float(spacing[0]) * row
