# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Medical input and output."""

from anomalib_mediclip.io.files import IMAGE_EXTENSIONS, find_images, natural_key, relative_names
from anomalib_mediclip.io.image import has_transparency, is_deep, read_image, read_mask

__all__ = [
    "IMAGE_EXTENSIONS",
    "find_images",
    "has_transparency",
    "is_deep",
    "natural_key",
    "read_image",
    "read_mask",
    "relative_names",
]
