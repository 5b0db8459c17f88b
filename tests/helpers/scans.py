# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Small CT series as DICOM, and where their voxels lie in the patient."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

MARKER = "QZXMARKER"  # in every attribute that names a patient or an examination
SPACING = (1.5, 0.8)  # mm between rows and between columns
ORIGIN = np.array([-40.0, 25.0, 110.0])
# Row and column cosines of six orientations; those of tilted gantries, and negated columns, were mirrored by others.
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "negated columns": (1, 0, 0, 0, -1, 0),
    "negated rows": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (*(0.8, 0.6, 0.0), *(0.36, -0.48, -0.8)),
}


def write_series(
    folder: Path, volume: npt.NDArray[np.int16], orientation: Sequence[float], distance: float = 2.0
) -> list[Path]:
    """Write a volume ``(slices, rows, columns)`` in HU as a series, one file a slice; files are not in their order.

    Args:
        folder (Path): Folder to make.
        volume (np.ndarray): Volume; slice 0 is the first along the normal of the planes.
        orientation (Sequence[float]): Row and column cosines.
        distance (float, optional): Distance of slices in mm. Defaults to ``2.0``.

    Returns:
        list[Path]: Files in the order of the slices.
    """
    folder.mkdir(parents=True)
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    cosines = np.array(orientation, dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    paths = []
    for index, pixels in enumerate(volume):
        header = _header(pixels)
        header.StudyInstanceUID, header.SeriesInstanceUID = study, series
        header.FrameOfReferenceUID, header.PositionReferenceIndicator = frame_of_reference, ""
        header.InstanceNumber = index + 1
        header.ImageOrientationPatient = [float(f"{value:.6g}") for value in cosines]
        header.ImagePositionPatient = [float(f"{value:.8g}") for value in ORIGIN + index * distance * normal]
        header.PixelSpacing, header.SliceThickness = list(SPACING), distance
        path = folder / f"image{(index * 7) % len(volume):03d}"  # 7 and the number of slices have no common divisor
        header.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _header(pixels: npt.NDArray[np.int16]) -> Dataset:
    """Return a CT image that is complete but for its place."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID, header.Modality = CTImageStorage, generate_uid(), "CT"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.PatientName, header.PatientID, header.AccessionNumber = f"{MARKER}^Name", f"{MARKER}ID", f"{MARKER}AC"
    header.PatientBirthDate, header.PatientSex, header.StudyID = "19031117", "F", "1"
    header.StudyDate, header.StudyTime, header.ReferringPhysicianName = "20200101", "120000", f"{MARKER}^Doctor"
    header.SeriesNumber, header.Manufacturer = 3, "none"
    header.SeriesDescription = header.StudyDescription = header.PatientComments = MARKER
    header.KVP, header.AcquisitionNumber = "120", "1"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = -1024, 1, "HU"
    header.WindowCenter, header.WindowWidth = 40, 400
    header.PixelData = (pixels.astype(int) + 1024).astype("<u2").tobytes()
    return header


def position_in_patient(image: Dataset, frame: int, row: float, column: float) -> npt.NDArray[np.float64]:
    """Return where the centre of a pixel lies, in mm, in a file of a slice or in a multi-frame result.

    Args:
        image (Dataset): Header.
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


def read_header(path: Path) -> Dataset:
    """Read a file without its pixels."""
    return pydicom.dcmread(path, stop_before_pixels=True)
