# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Medical input and output."""

from anomalib_mediclip.io.decoding import read_header
from anomalib_mediclip.io.dicom import read_values, series_of
from anomalib_mediclip.io.errors import ImageFileError, NoImageError
from anomalib_mediclip.io.files import (
    IMAGE_EXTENSIONS,
    MEDICAL_EXTENSIONS,
    describe_skipped,
    find_images,
    hash_of_file,
    images_in,
    is_left_out,
    list_files,
    natural_key,
    relative_names,
    search,
    stream_image_files,
)
from anomalib_mediclip.io.image import read_image
from anomalib_mediclip.io.kinds import kind_of
from anomalib_mediclip.io.mask import has_values, read_mask
from anomalib_mediclip.io.nifti import check_same_grid
from anomalib_mediclip.io.volumes import content_of, file_of, is_slice, slices_of

__all__ = [
    "IMAGE_EXTENSIONS",
    "MEDICAL_EXTENSIONS",
    "ImageFileError",
    "NoImageError",
    "check_same_grid",
    "content_of",
    "describe_skipped",
    "file_of",
    "find_images",
    "has_values",
    "hash_of_file",
    "images_in",
    "is_left_out",
    "is_slice",
    "kind_of",
    "list_files",
    "natural_key",
    "read_header",
    "read_image",
    "read_mask",
    "read_values",
    "relative_names",
    "search",
    "series_of",
    "slices_of",
    "stream_image_files",
]
