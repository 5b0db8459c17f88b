# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Errors about image files, with a sentence for the user."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
from PIL import Image
from tifffile import TiffFileError

# What decoders raise on damaged files, beside OSError.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError),
    *(RuntimeError, AssertionError, MemoryError, struct.error, zlib.error, cv2.error),
    *(TiffFileError, ImportError, Image.DecompressionBombError),  # an import fails where a codec is missing
)
_CONVERT = "convert it to PNG or TIFF with 8 or 16 bits a channel"

# How files of other kinds begin: offset, bytes, name.
_OTHER_KINDS = (
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyphev", "a HEIC image"),
    (4, b"ftypmif1", "a HEIC image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
)


class ImageFileError(ValueError):
    """An image file that cannot be read, or not rightly; the message names the file, the cause and the cure."""


class NoImageError(ImageFileError):
    """A DICOM file of a kind that holds no image, such as a report."""


def not_supported(kind: str) -> str:
    """Return the message about a valid file of a kind that is not read.

    Args:
        kind (str): What the file is, such as ``"a DICOM file"``.

    Returns:
        str: Message; :func:`named` adds the name of the file.
    """
    return f"{kind} is not supported: {_CONVERT}"


@contextmanager
def named(path: Path, file: Path | None = None) -> Iterator[None]:
    """Turn whatever reading raises into an error that names the file.

    Args:
        path (Path): Image file, or slice of a volume.
        file (Path | None, optional): File that holds the slice. Defaults to ``None``: ``path``.

    Yields:
        None: Nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        PermissionError: If it must not be read.
        ImageFileError: If it is empty, of another kind, truncated, damaged or too large.
    """
    if not (file or path).is_file():
        msg = f"no image file {path}: check the path"
        raise FileNotFoundError(msg)
    try:
        yield
    except (PermissionError, FileNotFoundError):
        raise
    except ImageFileError as error:
        msg = f"cannot read {path}: {error}"
        raise type(error)(msg) from error
    except Image.UnidentifiedImageError as error:
        msg = f"cannot read {path}: {_unidentified(file or path)}"
        raise ImageFileError(msg) from error
    except _DECODER_ERRORS as error:
        msg = f"cannot read {path}: truncated or damaged ({error}); copy it again from where it came"
        raise ImageFileError(msg) from error


def _unidentified(path: Path) -> str:
    """Say why no decoder takes a file."""
    if path.stat().st_size == 0:
        return "the file is empty (0 bytes); copy it again from where it came"
    with path.open("rb") as file:
        head = file.read(512)
    kinds = [kind for offset, magic, kind in _OTHER_KINDS if head[offset:].startswith(magic)]
    if path.name.lower().endswith((".dcm", ".dicom", ".nii", ".nii.gz")):
        return (
            "it is named like DICOM or NIfTI, and is neither: its header is damaged, or it is something else under "
            "this name. Copy it again from where it came"
        )
    if kinds:
        return not_supported(kinds[0])
    return (
        "not an image of a supported format, or its header is damaged. If a viewer opens it, save it as PNG or TIFF; "
        "otherwise copy it again from where it came"
    )
