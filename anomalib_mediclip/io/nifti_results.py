# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Results of NIfTI volumes as NIfTI, voxel by voxel on the source, so that 3D Slicer and ITK-SNAP overlay them."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.openers import ImageOpener

from anomalib_mediclip.atomic import written_beside

# What places the voxels. The other fields of a header are not taken over: converters write names and dates of patients
# into descriptions and extensions.
_GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def write_like(
    source: Path, slabs: Iterable[npt.NDArray[Any]], dtype: type[np.uint8] | type[np.float32], path: Path
) -> None:
    """Write a volume with the shape, the affine, and the codes of qform and sform of another one.

    Args:
        source (Path): NIfTI file, whose voxels are not read.
        slabs (Iterable[np.ndarray]): The volume in pieces along its third axis, so that it need not be in memory.
        dtype (type[np.uint8] | type[np.float32]): Kind of its numbers.
        path (Path): File to write, ending in ``.nii`` or ``.nii.gz``; its folder is made.

    Raises:
        ValueError: If the volume has not the shape of the source.
        OSError: If the file cannot be written.
    """
    image: Any = nib.load(source)
    kind: Any = nib.Nifti2Image if isinstance(image, nib.Nifti2Image) else nib.Nifti1Image
    header = kind.header_class()
    for field in _GEOMETRY:
        header[field] = image.header[field]
    header.set_data_dtype(dtype)
    header.set_data_shape(image.shape)
    header.set_slope_inter(1, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as unfinished, ImageOpener(str(unfinished), "wb") as file:
        header.write_to(file)  # and that there are no extensions
        found: tuple[int, ...] = (0, 0, 0)
        for slab in slabs:
            file.write(slab.astype(dtype, copy=False).tobytes(order="F"))
            found = (*slab.shape[:2], found[2] + slab.shape[2])
        if found != (*image.shape, 1, 1)[:3] or math.prod(found) != math.prod(image.shape):
            msg = f"{source} has the shape {image.shape}, the result {found}: they must be equal"
            raise ValueError(msg)
