# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Results of NIfTI volumes as NIfTI, voxel by voxel on the source, so that 3D Slicer and ITK-SNAP overlay them."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from anomalib_mediclip.atomic import written_beside

# What places the voxels. The other fields of a header are not taken over: converters write names and dates of patients
# into descriptions and extensions.
_GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def write_like(source: Path, voxels: npt.NDArray[Any], path: Path) -> None:
    """Write a volume with the shape, the affine, and the codes of qform and sform of another one.

    Args:
        source (Path): NIfTI file, whose voxels are not read.
        voxels (np.ndarray): Volume of three axes, those of the source, uint8 or float32.
        path (Path): File to write, ending in ``.nii`` or ``.nii.gz``; its folder is made.

    Raises:
        ValueError: If the volume has not the shape of the source.
        OSError: If the file cannot be written.
    """
    image: Any = nib.load(source)
    if voxels.shape != (*image.shape, 1, 1)[:3] or voxels.size != np.prod(image.shape):
        msg = f"{source} has the shape {image.shape}, the result {voxels.shape}: they must be equal"
        raise ValueError(msg)
    kind: Any = nib.Nifti2Image if isinstance(image, nib.Nifti2Image) else nib.Nifti1Image
    header = kind.header_class()
    for field in _GEOMETRY:
        header[field] = image.header[field]
    header.set_data_dtype(voxels.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as unfinished:
        nib.save(kind(voxels.reshape(image.shape), None, header), unfinished)
