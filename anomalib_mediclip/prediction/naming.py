# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Names of pictures and of folders of volumes: one for every image and volume, whatever it is called."""

import hashlib
import os
import unicodedata
from pathlib import Path, PurePath
from urllib.parse import quote

from anomalib_mediclip.io import IMAGE_EXTENSIONS, MEDICAL_EXTENSIONS, is_slice

PICTURE = ".png"
KNOWN = (*IMAGE_EXTENSIONS, *MEDICAL_EXTENSIONS)
OUTSIDE = "outside"  # folder of the pictures of images that lie outside the data set's folder
MAX_BYTES = 255  # of a name, in the usual file systems


def picture_name(image: str | Path, root: str | Path | None) -> Path:
    """Name a picture after its image, so that no two images of a data set share one.

    It is the path below the root, or the absolute path in the folder ``outside``. Links are not followed. Other endings
    than PNG are kept, and so is PNG after another one: ``a.jpg`` and ``a.jpg.png`` differ. A part of the path that is
    hidden, too long or not printable is changed, and gets a hash; so does a file without a known ending. The pictures
    of slices are in a folder of the name of their volume.

    Args:
        image (str | Path): Image file, or slice of a volume.
        root (str | Path | None): Folder of the data set, if it has one.

    Returns:
        Path: Relative path.

    Example:
        >>> [picture_name(f"set/{name}", "set").as_posix() for name in ("a/1.png", "a/1.jpg", "a/1.jpg.png")]
        ['a/1.png', 'a/1.jpg.png', 'a/1.jpg.png.png']
    """
    *folders, file = _below(image, root).parts
    name = PurePath(file)
    is_plain = name.suffix == PICTURE and PurePath(name.stem).suffix.lower() not in KNOWN
    target = Path(*(_safe(folder) for folder in folders))
    if name.suffix.lower() in KNOWN or is_slice(image):
        return target / _safe(name.stem if is_plain else file, PICTURE)
    return target / _safe(file, f"~{_hash(file)}{PICTURE}")  # beside IM1 there may be IM1.png


def volume_name(source: str | Path, root: str | Path | None) -> Path:
    """Name the folder of the results of a volume after its file, or after the folder of its series.

    Args:
        source (str | Path): File or folder.
        root (str | Path | None): Folder below which it is named, as for :func:`picture_name`.

    Returns:
        Path: Relative path.

    Example:
        >>> volume_name("set/a/scan.nii.gz", "set").as_posix()
        'a/scan.nii.gz'
    """
    return Path(*(_safe(part) for part in _below(source, root).parts))


def _below(image: str | Path, root: str | Path | None) -> PurePath:
    """Return the path of an image below the root, or below the folder for those outside."""
    path = Path(image).absolute()
    if root is not None:
        for folder in (Path(root).absolute(), Path(root).resolve()):  # anomalib resolves links in paths of images
            if path.is_relative_to(folder):
                return path.relative_to(folder)
    return PurePath(OUTSIDE, *path.parts[1:])


def _safe(part: str, ending: str = "") -> str:
    """Return a name for a folder, or with an ending for a file, that is visible and can be written everywhere."""
    name = "".join(_printable(character) for character in part)
    name = f"_{name[1:]}" if name.startswith(".") else name
    is_picture = not ending and name.endswith(PICTURE)  # a folder of the name of a picture
    if name == part and not is_picture and len(os.fsencode(name + ending)) <= MAX_BYTES:
        return name + ending
    tail = ending if ending.startswith("~") else f"~{_hash(part)}{ending}"
    return name.encode()[: MAX_BYTES - len(tail)].decode("utf-8", "ignore") + tail


def _hash(part: str) -> str:
    """Return what tells names apart that would become the same."""
    return hashlib.sha256(os.fsencode(part)).hexdigest()[:8]


def _printable(character: str) -> str:
    """Return a character, or percent signs and hexadecimal digits for control characters and undecodable bytes."""
    is_printable = unicodedata.category(character) not in {"Cc", "Cs"}
    return character if is_printable else quote(os.fsencode(character), safe="")
