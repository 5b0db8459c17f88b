# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A folder and a zip file as one interface: the names of their files, and their content."""

import contextlib
import shutil
import stat
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Self

from anomalib_mediclip.io import is_left_out, list_files, natural_key

UNPACK = "unpack it yourself and give the folder"
# A file above this size that shrank to less than a hundredth is refused: a "zip bomb" would fill the disk.
MAX_SHRUNK_SIZE = 1 << 30
MAX_RATIO = 100
_ENCRYPTED = 0x1  # bit of a zip entry's flags
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class ArchiveError(ValueError):
    """An archive that cannot be read, or must not be; the message names the archive and the entry."""


class Archive(ABC):
    """Files below a folder or in a zip file.

    Attributes:
        path (Path): Folder or zip file.
        names (list[PurePosixPath]): Names of the files in natural order, without hidden files and those that operating
            systems add.
    """

    path: Path
    names: list[PurePosixPath]

    @abstractmethod
    def size(self, name: PurePosixPath) -> int:
        """Return the size of a file in bytes."""

    @abstractmethod
    def open(self, name: PurePosixPath) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file for reading; errors name the archive and the file."""

    @abstractmethod
    def file(self, name: PurePosixPath) -> contextlib.AbstractContextManager[Path]:
        """Yield a path under which the file can be read while the context lasts."""

    def reason(self, error: Exception, path: Path, name: PurePosixPath) -> str:
        """Return what an error says about a file, by its name in the archive.

        Args:
            error (Exception): Error raised by reading the file.
            path (Path): Path under which :meth:`file` gave the file.
            name (PurePosixPath): Its name.

        Returns:
            str: Message of the error.
        """
        return str(error).replace(str(path), str(self.path / name))

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FolderArchive(Archive):
    """A folder; links in it are followed, except those that lead back to a folder above them.

    Args:
        path (Path): Folder.

    Raises:
        ArchiveError: If a folder in it must not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        files = list_files(path)
        closed = [file for file in files if file.is_dir()]
        if closed:
            msg = f"the folder {closed[0]} cannot be read, and may hold images: allow it, or move it away"
            raise ArchiveError(msg)
        self.names = [PurePosixPath(file.relative_to(path).as_posix()) for file in files]

    def size(self, name: PurePosixPath) -> int:
        """Return the size of a file in bytes."""
        return (self.path / name).stat().st_size

    @contextlib.contextmanager
    def open(self, name: PurePosixPath) -> Iterator[IO[bytes]]:
        """Open a file for reading."""
        with (self.path / name).open("rb") as file:
            yield file

    @contextlib.contextmanager
    def file(self, name: PurePosixPath) -> Iterator[Path]:
        """Yield the file itself."""
        yield self.path / name

    def close(self) -> None:
        """Do nothing: a folder is not kept open."""


class ZipArchive(Archive):
    """A zip file. Nothing is unpacked but one file at a time, into a temporary folder or where the caller writes it.

    Args:
        path (Path): Zip file.

    Raises:
        ArchiveError: If the file is damaged, or an entry is encrypted, a link, no file, listed twice, larger than its
            compressed size can explain, or has an absolute name or one that leads out of the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            self._zip = zipfile.ZipFile(path)
        try:
            self._entries = self._checked(self._zip.infolist())
        except ArchiveError:
            self._zip.close()
            raise
        self.names = sorted((name for name in self._entries if not is_left_out(name)), key=natural_key)

    def _checked(self, entries: Sequence[zipfile.ZipInfo]) -> dict[PurePosixPath, zipfile.ZipInfo]:
        """Return the files by name, after looking for what would do harm."""
        files: dict[PurePosixPath, zipfile.ZipInfo] = {}
        for entry in entries:
            name = PurePosixPath(entry.filename.replace("\\", "/"))  # some programs of Windows write backslashes
            fault = _fault(entry, name) or ("is listed twice" if name in files else "")
            if fault:
                msg = f"{self.path}: the entry {entry.orig_filename!r} {fault}. Nothing was read; {UNPACK}."
                raise ArchiveError(msg)
            if not _is_folder(entry):
                files[name] = entry
        return files

    def size(self, name: PurePosixPath) -> int:
        """Return the size of a file in bytes."""
        return self._entries[name].file_size

    @contextlib.contextmanager
    def open(self, name: PurePosixPath) -> Iterator[IO[bytes]]:
        """Open a file for reading."""
        with self._explained(name), self._zip.open(self._entries[name]) as file:
            yield file

    @contextlib.contextmanager
    def file(self, name: PurePosixPath) -> Iterator[Path]:
        """Unpack a file into a temporary folder."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name.name
            with self.open(name) as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            yield path

    def close(self) -> None:
        """Close the zip file."""
        self._zip.close()

    @contextlib.contextmanager
    def _explained(self, name: PurePosixPath | None = None) -> Iterator[None]:
        """Turn what reading a damaged zip file raises into an error that names it."""
        try:
            yield
        except _DAMAGED as error:
            what = "cannot be read as a zip file" if name is None else f"the entry {str(name)!r} cannot be unpacked"
            msg = f"{self.path}: {what} ({error}). Download or copy the archive again, or {UNPACK}."
            raise ArchiveError(msg) from error


def open_archive(path: Path) -> Archive:
    """Open a folder or a zip file.

    Args:
        path (Path): Folder or zip file; a zip file is known by its content, not by its name.

    Returns:
        Archive: To be used in a ``with`` statement.

    Raises:
        FileNotFoundError: If there is neither.
        ArchiveError: If a file is no zip file or one that is damaged, encrypted or harmful, or if there are no files.
    """
    if not path.exists():
        msg = f"no file or folder {path} (absolute: {path.absolute()}): check the path"
        raise FileNotFoundError(msg)
    archive = FolderArchive(path) if path.is_dir() else ZipArchive(path)
    if not archive.names:
        archive.close()
        msg = f"{path} is empty: give the folder or the zip file that holds the images"
        raise ArchiveError(msg)
    return archive


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    """Tell whether an entry is a folder, also where backslashes separate names."""
    return entry.filename.endswith(("/", "\\"))


def _fault(entry: zipfile.ZipInfo, name: PurePosixPath) -> str:
    """Say what is wrong with an entry, empty if nothing is."""
    written = entry.orig_filename.replace("\\", "/")
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive comes from Windows
    is_nameless = not name.parts and not _is_folder(entry)
    if written.startswith("/") or written[1:2] == ":" or "\0" in written or is_nameless:
        return "has an absolute or a broken name"
    if ".." in name.parts:
        return "leads out of the archive (..)"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.file_size > max(MAX_SHRUNK_SIZE, MAX_RATIO * entry.compress_size):
        return f"claims {entry.file_size:,} bytes, {MAX_RATIO} times more than it takes in the archive"
    return ""
