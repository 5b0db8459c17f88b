# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Medical input and output."""

from anomalib_mediclip.io.image import (
    IMAGE_EXTENSIONS,
    find_images,
    has_transparency,
    is_deep,
    natural_key,
    read_image,
    read_mask,
    relative_names,
)

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
