# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Fingerprint of the files of a data set: a result belongs to the images it was found on."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.benchmark.factory import make_datamodule
from anomalib_mediclip.display import PLANES, describe_display
from anomalib_mediclip.io import file_of, hash_of_file

CACHE = "data_hashes.json"  # in the folder of the benchmark


def hash_data(specification: dict[str, Any], folder: Path) -> str:
    """Hash names, sizes and contents of all images and masks of a data set.

    Files that have the size and the time of change of an earlier call are not read again. A window or plane that the
    user has chosen for DICOM and NIfTI belongs to the data too.

    Args:
        specification (dict[str, Any]): ``class_path`` and ``init_args`` of the data module.
        folder (Path): Folder of the benchmark, where hashes of files are kept.

    Returns:
        str: 64 hexadecimal digits.

    Raises:
        ValueError: If there is no such class or argument.
        FileNotFoundError: If the data set, or a file of it, is not where it should be.
    """
    datamodule = make_datamodule(specification, {})
    files = {path for sample in datamodule.all_samples() for path in (sample.image, *sample.masks)}
    cache = _Cache(folder / CACHE)
    display = describe_display()
    chosen = {name: value for name, value in display.items() if value not in (None, PLANES[0])}
    digest = hashlib.sha256(json.dumps(chosen).encode() if chosen else b"")
    for path in tqdm(sorted(files), desc=f"reading {datamodule.root}", leave=False, delay=1):
        name = os.path.relpath(path, datamodule.root)
        file, _ = file_of(path)  # the name says which slice
        digest.update(f"{name}\0{file.stat().st_size}\0{cache.hash_of(file)}\0".encode())
    cache.save()
    return digest.hexdigest()


class _Cache:
    """Hashes of files by path, size and time of change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)
        self._is_new = False

    def hash_of(self, path: Path) -> str:
        """Return the hash of a file's content."""
        key, status = str(path.resolve()), path.stat()
        state = [status.st_size, status.st_mtime_ns]
        if self._known.get(key, [])[:2] != state:
            self._known[key] = [*state, hash_of_file(path)]
            self._is_new = True
        return str(self._known[key][2])

    def save(self) -> None:
        """Write the hashes, if there are new ones."""
        if self._is_new:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, json.dumps(self._known))


def _read(file: Path) -> dict[str, Any]:
    """Read hashes; nothing from a file that is missing or damaged, because they can be computed again."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
