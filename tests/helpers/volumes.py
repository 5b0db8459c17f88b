# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Small DICOM and NIfTI files, whose patient has a name that must appear nowhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SECRET = "Zyxwv"  # part of every attribute that tells who the patient is


def make_dicom(path: Path, pixels: npt.NDArray[Any], **attributes: Any) -> Path:
    """Write a grey DICOM file of one frame ``(H, W)`` or of several, or in RGB with ``SamplesPerPixel=3``."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.PatientName, file.PatientID, file.AccessionNumber = f"{SECRET}^Name", f"{SECRET}-ID", f"{SECRET}-ACC"
    file.InstitutionName, file.PatientBirthDate, file.PatientComments = SECRET, "19010203", SECRET
    file.StudyInstanceUID = attributes.pop("StudyInstanceUID", generate_uid())
    file.SeriesInstanceUID = attributes.pop("SeriesInstanceUID", generate_uid())
    file.Modality, file.InstanceNumber = "CT", 1
    file.SamplesPerPixel = attributes.get("SamplesPerPixel", 1)
    file.PhotometricInterpretation = "MONOCHROME2" if file.SamplesPerPixel == 1 else "RGB"
    spatial = pixels.shape[:-1] if file.SamplesPerPixel == 3 else pixels.shape
    file.Rows, file.Columns = spatial[-2:]
    if len(spatial) == 3:
        file.NumberOfFrames = spatial[0]
    if file.SamplesPerPixel == 3:
        file.PlanarConfiguration = 0
    file.BitsAllocated = file.BitsStored = 8 * pixels.dtype.itemsize
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def functional_group(**sequences: dict[str, Any]) -> Dataset:
    """Return an item of a functional groups sequence, with the attributes of each of its macros."""
    group = Dataset()
    for name, attributes in sequences.items():
        item = Dataset()
        for keyword, value in attributes.items():
            setattr(item, keyword, value)
        setattr(group, name, [item])
    return group


def make_series(folder: Path, volume: npt.NDArray[Any], rows: Sequence[float], columns: Sequence[float]) -> list[Path]:
    """Write the slices of a volume ``(slices, H, W)`` as a series 2 mm apart, whose names tell nothing of their order.

    Args:
        folder (Path): Folder to write to.
        volume (np.ndarray): Volume of integers.
        rows (Sequence[float]): Direction of a row (of growing column numbers).
        columns (Sequence[float]): Direction of a column.

    Returns:
        list[Path]: Files in the order of the slices.
    """
    series, normal = generate_uid(), np.cross(rows, columns)
    order = np.random.default_rng(0).permutation(len(volume))
    return [
        make_dicom(
            folder / f"{order[index]:04d}.dcm",
            pixels,
            SeriesInstanceUID=series,
            InstanceNumber=int(order[index]) + 1,
            ImageOrientationPatient=[*map(float, rows), *map(float, columns)],
            ImagePositionPatient=[float(value) for value in np.array([-20.0, 30.0, 10.0]) + 2 * index * normal],
            PixelSpacing=[1.5, 0.75],
            WindowCenter=500,
            WindowWidth=1000,
        )
        for index, pixels in enumerate(volume)
    ]


def make_nifti(path: Path, volume: npt.NDArray[Any], affine: npt.NDArray[Any] | None = None) -> Path:
    """Write a NIfTI volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(volume, np.eye(4) if affine is None else affine).to_filename(path)
    return path
