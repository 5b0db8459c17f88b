# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Image files of a folder, in natural order."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from tqdm import tqdm

from anomalib_mediclip.io.errors import ImageFileError, NoImageError
from anomalib_mediclip.io.kinds import kind_of
from anomalib_mediclip.io.volumes import Listing, list_images

IMAGE_EXTENSIONS = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
MEDICAL_EXTENSIONS = (".dcm", ".dicom", ".ima", ".nii", ".nii.gz")

WITHOUT_ENDING = "without extension"

# Folders and files that file servers and operating systems add, beside hidden ones; in lower case.
_SYSTEM_NAMES = (
    "@eadir",
    "__macosx",
    "$recycle.bin",
    "#recycle",
    "#snapshot",
    "lost+found",
    "thumbs.db",
    "desktop.ini",
)


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
        images (list[Path]): Images in natural order; paths start with the folder.
        skipped (Counter[str]): Number of other files by ending, such as ``".txt"``.
    """

    images: list[Path]
    skipped: Counter[str]


def relative_names(paths: Iterable[str | Path]) -> dict[str, str]:
    """Name images by their paths relative to the folder that holds them all.

    File names alone will not do: in CheXpert every one is called ``view1_frontal.jpg``.

    Args:
        paths (Iterable[str | Path]): Image files.

    Returns:
        dict[str, str]: Relative path, with forward slashes, of every path.

    Example:
        >>> relative_names(["set/a/1.png", "set/b/1.png"])
        {'set/a/1.png': 'a/1.png', 'set/b/1.png': 'b/1.png'}
    """
    listed = [str(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) or "." for path in listed])  # noqa: PTH120
    return {path: Path(os.path.relpath(path, folder)).as_posix() for path in listed}


def find_images(folder: str | Path) -> list[Path]:
    """List the images under a folder, recursively and in natural order (``2.png`` before ``10.png``).

    Args:
        folder (str | Path): Folder to search.

    Returns:
        list[Path]: Paths that start with ``folder``; never empty.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If ``folder`` is a file or holds no image.
    """
    return search(folder).images


def search(folder: str | Path, left_out: Collection[str | Path] = ()) -> Found:
    """Search a folder recursively for images.

    DICOM and NIfTI are found by their content, whatever their ending; pictures by their ending, and by their content if
    they have none. Volumes are listed slice by slice (see :func:`anomalib_mediclip.io.slices_of`), the DICOM files of a
    series in order of position. A file that says by its ending that it is an image is listed even if it cannot be read.

    Links are followed, except those that lead back to a folder above them. Hidden files and folders are left out, and
    what file servers and operating systems add (``@eaDir``, ``Thumbs.db``, ...).

    Args:
        folder (str | Path): Folder to search.
        left_out (Collection[str | Path], optional): Folders below it that are not searched. Defaults to ``()``.

    Returns:
        Found: At least one image, and the number of other files.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If ``folder`` is a file or holds no image.
    """
    folder = Path(folder)
    if folder.is_file():
        msg = f"{folder} is a file, not a folder of images: give the folder that holds it"
        raise ValueError(msg)
    if not folder.is_dir():
        msg = f"no folder {folder} (absolute: {folder.absolute()}): check the path"
        raise FileNotFoundError(msg)
    files = _walk(folder, {_identity(Path(path)) for path in left_out if Path(path).exists()}, ())
    groups: dict[tuple[Path, str], list[Listing]] = {}
    skipped = Counter[str]()
    for path in tqdm(sorted(files, key=natural_key), f"searching {folder}", leave=False, delay=3, unit=" files"):
        kind = _kind(path)
        found = _list_images(path, kind)
        if found is None:
            skipped[kind] += 1
        else:  # the files of a series follow each other, in their order
            groups.setdefault((path.parent, found.series) if found.series else (path, ""), []).append(found)
    if not groups:
        found_instead = describe_skipped(skipped) or "no files"
        msg = f"no images in {folder}: looked for DICOM, NIfTI, {', '.join(IMAGE_EXTENSIONS)}, found {found_instead}"
        raise ValueError(msg)
    listings = (one for group in groups.values() for one in sorted(group, key=lambda listing: listing.place))
    return Found([image for listing in listings for image in listing.images], skipped)


def _list_images(path: Path, kind: str) -> Listing | None:
    """List the images of a file; None if it is no image."""
    if kind in IMAGE_EXTENSIONS:
        return Listing([path])
    if not path.is_file():
        return None
    claims = kind in MEDICAL_EXTENSIONS
    try:
        content = kind_of(path)
        if content in ("dicom", "nifti"):
            return list_images(path)
    except NoImageError:
        return None
    except (OSError, ImageFileError):  # whoever reads it is told why it cannot be read
        return Listing([path])
    return Listing([path]) if claims or (content == "picture" and kind == WITHOUT_ENDING) else None


def stream_image_files(folder: Path, left_out: Collection[Path] = ()) -> Iterator[Path]:
    """Yield the files that :func:`search` would look into, one at a time, for folders with millions of them.

    Volumes are not taken apart, and files of a series not put in order. No more than the names of one folder are kept.

    Args:
        folder (Path): Folder to search.
        left_out (Collection[Path], optional): Folders below it that are not searched. Defaults to ``()``.

    Yields:
        Path: Files in the order of the characters of their names, folder by folder; paths start with ``folder``.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    if not folder.is_dir():
        msg = f"no folder {folder} (absolute: {folder.absolute()}): check the path"
        raise FileNotFoundError(msg)
    yield from _stream(folder, {_identity(path) for path in left_out if path.exists()}, ())


def _stream(folder: Path, left_out: set[tuple[int, int]], above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield the image files below a folder; one that may not be read has none."""
    above = (*above, _identity(folder))
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  # names take a tenth of the memory of paths
    except PermissionError:
        return
    for name in names:
        entry = folder / name
        if _is_left_out(name):
            continue
        if not entry.is_dir():
            if _may_be_image(entry):
                yield entry
        elif _identity(entry) not in left_out and _identity(entry) not in above:
            yield from _stream(entry, left_out, above)


def _may_be_image(path: Path) -> bool:
    """Tell by its ending whether a file is an image, and by its first bytes if it has another ending or none."""
    kind = _kind(path)
    if kind in IMAGE_EXTENSIONS or kind in MEDICAL_EXTENSIONS:
        return True
    try:
        content = kind_of(path)
    except OSError:
        return False
    return content in ("dicom", "nifti") or (content == "picture" and kind == WITHOUT_ENDING)


def images_in(path: Path) -> list[Path]:
    """List the images of a file as :func:`search` does.

    Args:
        path (Path): File.

    Returns:
        list[Path]: The file itself, or the slices of a volume; empty if it is no image.
    """
    found = _list_images(path, _kind(path))
    return [] if found is None else found.images


def list_files(folder: Path) -> list[Path]:
    """List all files below a folder, whatever they are, but hidden files and what operating systems add.

    Args:
        folder (Path): Folder to search; links are followed as in :func:`search`.

    Returns:
        list[Path]: Files in natural order; paths start with the folder. Unreadable folders and broken links too.
    """
    return sorted(_walk(folder, set(), ()), key=natural_key)


def is_left_out(path: PurePath) -> bool:
    """Tell whether a path is hidden, or lies in what operating systems and file servers add.

    Args:
        path (PurePath): Path relative to the folder that is searched.

    Returns:
        bool: True if :func:`search` would not look at it.

    Example:
        >>> is_left_out(PurePath("__MACOSX/scans/1.png")), is_left_out(PurePath("scans/1.png"))
        (True, False)
    """
    return any(_is_left_out(part) for part in path.parts)


def hash_of_file(path: str | Path) -> str:
    """Hash the bytes of a file, which may be larger than the memory.

    Args:
        path (str | Path): File.

    Returns:
        str: SHA-256, 64 hexadecimal digits.

    Raises:
        OSError: If it cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_skipped(skipped: Counter[str]) -> str:
    """Describe files that are no images.

    Args:
        skipped (Counter[str]): Number of files by ending.

    Returns:
        str: The most frequent first, empty without any.

    Example:
        >>> describe_skipped(Counter({".txt": 1, ".dcm": 2}))
        '2 .dcm, 1 .txt'
    """
    return ", ".join(f"{count} {kind}" for kind, count in skipped.most_common())


def _walk(folder: Path, left_out: set[tuple[int, int]], above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield all files below a folder, and unreadable folders."""
    above = (*above, _identity(folder))
    try:
        entries = list(folder.iterdir())
    except PermissionError:
        yield folder
        return
    for entry in entries:
        if _is_left_out(entry.name):
            continue
        if not entry.is_dir():
            yield entry
        elif _identity(entry) not in left_out and _identity(entry) not in above:
            yield from _walk(entry, left_out, above)


def _is_left_out(name: str) -> bool:
    """Tell whether a file or folder of this name is hidden or added by a system."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _identity(folder: Path) -> tuple[int, int]:
    """Return what tells a folder from all others, by whatever path it is reached."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def _kind(path: Path) -> str:
    """Return the ending of a file in lower case, or what else it is."""
    if path.is_dir():
        return "unreadable folder"
    if not path.is_file():
        return "broken link"
    ending = path.suffix.lower()
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else ending or WITHOUT_ENDING


def natural_key(path: str | PurePath) -> tuple[list[list[str | int]], str]:
    """Return the key that sorts paths as people do: numbers by value, letters regardless of case.

    Args:
        path (str | PurePath): Path or name.

    Returns:
        tuple[list[list[str | int]], str]: Key for ``sorted``.

    Example:
        >>> sorted(["b10.png", "B2.png", "a.png"], key=natural_key)
        ['a.png', 'B2.png', 'b10.png']
    """
    parts = PurePath(path).parts
    # re.split puts text at even and digits at odd positions, so that text is only ever compared with text
    return [[_natural_token(token) for token in re.split(r"(\d+)", part)] for part in parts], str(path)


def _natural_token(token: str) -> str | int:
    """Return a run of digits as a number and other text regardless of case."""
    return int(token) if token.isdecimal() else token.casefold()
