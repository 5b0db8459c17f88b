# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Copying that can be interrupted at any time and goes on where it was, and that never overwrites a file."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from anomalib_mediclip.atomic import UNFINISHED, written_beside
from anomalib_mediclip.data.samples import listed
from anomalib_mediclip.io import hash_of_file, list_files
from anomalib_mediclip.prepare.archive import Archive
from anomalib_mediclip.prepare.naming import MASK_FOLDER

FOLDERS = ("train", "test", MASK_FOLDER)
_CHUNK = 1 << 20


class Source(NamedTuple):
    """A file of an archive.

    Attributes:
        name (PurePosixPath): Its name in the archive.
        sha256 (str): Hash of its bytes, when it was read before.
    """

    name: PurePosixPath
    sha256: str


def find_missing(target: Path, sources: Mapping[str, Source], texts: Mapping[str, str]) -> dict[str, Source]:
    """Compare what is in the target with what is to be there, and remove what a killed process left unfinished.

    Args:
        target (Path): Folder to write to.
        sources (Mapping[str, Source]): What is to be copied: path relative to the target -> file of the archive.
        texts (Mapping[str, str]): What is to be written: path relative to the target -> content.

    Returns:
        dict[str, Source]: Those of ``sources`` that are not there yet.

    Raises:
        FileExistsError: If the target holds another file where one is to be written, or a file that belongs to no
            image. Nothing has been changed then.
    """
    existing = [path for folder in FOLDERS if (target / folder).exists() for path in _files(target / folder)]
    unfinished = [path for path in (*existing, *target.glob("unfinished.*")) if UNFINISHED.match(path.name)]
    names = {path.relative_to(target).as_posix(): path for path in existing if path not in unfinished}
    foreign = [path for name, path in names.items() if name not in sources]
    progress = tqdm(names.items(), "comparing", leave=False, delay=1, unit="file")
    other = [path for name, path in progress if name in sources and _sha256(path) != sources[name].sha256]
    other += [target / name for name, text in texts.items() if _differs(target / name, text)]
    if foreign or other:
        msg = (
            f"{target} holds files that this preparation would not write: {listed([*other, *foreign])}. Nothing was "
            "changed. Choose another target, or give the source and the options of the preparation that made them"
        )
        raise FileExistsError(msg)
    for path in unfinished:
        path.unlink()
    return {name: source for name, source in sources.items() if name not in names}


def copy_files(archive: Archive, target: Path, missing: Mapping[str, Source]) -> None:
    """Copy files of an archive, each whole or not at all.

    Args:
        archive (Archive): Where they are.
        target (Path): Folder to write to.
        missing (Mapping[str, Source]): Path relative to the target -> file of the archive.

    Raises:
        OSError: If the disk has too little space; nothing has been copied then.
        ValueError: If a file has changed since it was read.
    """
    needed, free = sum(archive.size(source.name) for source in missing.values()), shutil.disk_usage(target).free
    if needed > free:
        msg = f"{target} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are to be copied: make room"
        raise OSError(msg)
    for name, source in tqdm(missing.items(), "copying", unit="file"):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(source.name) as file, written_beside(path) as unfinished, unfinished.open("wb") as copy:
            digest = _copy(file, copy)
            if digest != source.sha256:
                msg = f"{archive.path / source.name} has changed while it was prepared: run the command again"
                raise ValueError(msg)


def _copy(file: IO[bytes], copy: IO[bytes]) -> str:
    """Copy a file and return the hash of what was copied."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        copy.write(chunk)
    return digest.hexdigest()


def _files(path: Path) -> Sequence[Path]:
    """Return the files of a folder, or the file that has taken its place."""
    return list_files(path) if path.is_dir() else [path]


def _differs(path: Path, text: str) -> bool:
    """Tell whether there is something else where a text is to be written."""
    return path.exists() and (not path.is_file() or path.read_bytes() != text.encode())


def _sha256(path: Path) -> str:
    """Hash a file, empty for what is none."""
    return hash_of_file(path) if path.is_file() else ""
