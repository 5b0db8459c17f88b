# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Image files of a folder, in natural order."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


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

    Hidden files and folders are skipped.

    Args:
        folder (str | Path): Folder to search.

    Returns:
        list[Path]: Paths that start with ``folder``; never empty.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If ``folder`` is a file or holds no image.
    """
    folder = Path(folder)
    if folder.is_file():
        msg = f"{folder} is a file, not a folder of images: give the folder that holds it"
        raise ValueError(msg)
    if not folder.is_dir():
        msg = f"no folder {folder} (absolute: {folder.resolve()}): check the path"
        raise FileNotFoundError(msg)
    files = [path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder))]
    images = [path for path in files if path.suffix.lower() in IMAGE_EXTENSIONS]
    if not images:
        counts = Counter(path.suffix.lower() or "no extension" for path in files)
        found = ", ".join(f"{count} x {extension}" for extension, count in counts.most_common(5)) or "no files"
        msg = f"no images in {folder}: looked for {', '.join(IMAGE_EXTENSIONS)}, found {found}"
        raise ValueError(msg)
    return sorted(images, key=natural_key)


def natural_key(path: str | Path) -> tuple[list[list[str | int]], str]:
    """Return the key that sorts paths as people do: numbers by value, letters regardless of case.

    Args:
        path (str | Path): Path or name.

    Returns:
        tuple[list[list[str | int]], str]: Key for ``sorted``.

    Example:
        >>> sorted(["b10.png", "B2.png", "a.png"], key=natural_key)
        ['a.png', 'B2.png', 'b10.png']
    """
    parts = Path(path).parts
    # re.split puts text at even and digits at odd positions, so that text is only ever compared with text
    return [[_natural_token(token) for token in re.split(r"(\d+)", part)] for part in parts], str(path)


def _natural_token(token: str) -> str | int:
    """Return a run of digits as a number and other text regardless of case."""
    return int(token) if token.isdecimal() else token.casefold()


def _is_hidden(relative: Path) -> bool:
    """Tell whether a path relative to the searched folder has a part that starts with a dot."""
    return any(part.startswith(".") for part in relative.parts)
