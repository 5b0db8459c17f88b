# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Kind of a file by its first bytes, whatever it is called."""

import gzip
import re
import zlib
from pathlib import Path
from typing import Literal

Kind = Literal["dicom", "nifti", "picture"]

GZIP = b"\x1f\x8b"
HEADER = 544  # bytes of the longest header that is looked at, that of NIfTI-2
NIFTI_MAGIC = {348: (344, (b"n+1\0", b"ni1\0")), 540: (4, (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n"))}

_PICTURES = (
    *((0, b"\x89PNG"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (0, b"BM"), (8, b"WEBP"), (4, b"ftypavi")),
    *((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
    *((4, b"jP  \r\n"), (0, b"\xff\x4f\xff\x51"), *((0, b"P%d" % number) for number in range(1, 7))),
)
# A data set without the preamble of a file begins with an element of group 2 or 8: little endian with a known type of
# value or with a short length, or big endian with a type.
_TYPES = b"(AE|AS|CS|DA|DS|DT|IS|LO|LT|OB|OW|PN|SH|SQ|ST|TM|UI|UL|US|UN|UT)"
_BARE_DICOM = re.compile(
    rb"[\x02\x08]\0[\0-\x7f]\0(" + _TYPES + rb"|.\0\0\0)|\0[\x02\x08]\0[\0-\x7f]" + _TYPES, re.DOTALL
)


def kind_of(path: str | Path) -> Kind | None:
    """Tell what a file is by its first bytes.

    Args:
        path (str | Path): File.

    Returns:
        Kind | None: ``"dicom"`` (with or without the preamble), ``"nifti"`` (version 1 or 2, also compressed by gzip),
            ``"picture"`` (a format that Pillow or tifffile reads), or None for anything else.

    Raises:
        OSError: If the file cannot be read.
    """
    with Path(path).open("rb") as file:
        head = file.read(HEADER)
    if head[128:132] == b"DICM":
        return "dicom"
    if is_nifti(unpacked(path, head)):
        return "nifti"
    if any(head[offset:].startswith(magic) for offset, magic in _PICTURES):
        return "picture"
    return "dicom" if _BARE_DICOM.match(head) else None


def unpacked(path: str | Path, head: bytes) -> bytes:
    """Return the first bytes of a file, of its content if it is compressed by gzip.

    Args:
        path (str | Path): File.
        head (bytes): Its first bytes as they are stored.

    Returns:
        bytes: First bytes; none if it is a damaged gzip file.
    """
    if not head.startswith(GZIP):
        return head
    try:
        with gzip.open(path) as file:
            return file.read(HEADER)
    except (OSError, EOFError, zlib.error):
        return b""


def is_nifti(head: bytes) -> bool:
    """Tell NIfTI by its header.

    Args:
        head (bytes): First bytes of a file, not compressed.

    Returns:
        bool: Whether the size of the header and the magic bytes are those of NIfTI-1 or NIfTI-2.
    """
    sizes = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    return any(
        head[offset:].startswith(magics) for size in sizes for offset, magics in [NIFTI_MAGIC.get(size, (0, ()))]
    )


def is_pair(head: bytes) -> bool:
    """Tell the header of a NIfTI of two files.

    Args:
        head (bytes): First bytes of a NIfTI file, not compressed.

    Returns:
        bool: Whether the voxels are in another file.
    """
    return head[344:346] == b"ni" or head[4:6] == b"ni"
