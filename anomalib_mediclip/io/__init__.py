# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Medical input and output."""

from anomalib_mediclip.io.decoding import read_header
from anomalib_mediclip.io.errors import ImageFileError
from anomalib_mediclip.io.files import (
    IMAGE_EXTENSIONS,
    describe_skipped,
    find_images,
    is_left_out,
    list_files,
    natural_key,
    relative_names,
    search,
)
from anomalib_mediclip.io.image import read_image
from anomalib_mediclip.io.mask import read_mask

__all__ = [
    "IMAGE_EXTENSIONS",
    "ImageFileError",
    "describe_skipped",
    "find_images",
    "is_left_out",
    "list_files",
    "natural_key",
    "read_header",
    "read_image",
    "read_mask",
    "relative_names",
    "search",
]
