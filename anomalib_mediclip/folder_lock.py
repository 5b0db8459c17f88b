# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A folder in which one process works at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"  # hidden, so that it is no file of a data set


@contextlib.contextmanager
def only_process(folder: Path, doing: str) -> Iterator[None]:
    """Make a folder, and keep other processes out; one that is killed gives it back.

    Args:
        folder (Path): Folder to work in.
        doing (str): What such a process does with it, for the message, such as ``"predicts into"``.

    Yields:
        None: Nothing.

    Raises:
        FileExistsError: If another process works in it, or it is a file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, only_process(Path(folder), "writes into"):
        ...     [path.name for path in Path(folder).iterdir()]
        ['.lock']
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file: give a folder that does not exist, or that of the same command before"
        raise FileExistsError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        msg = f"another process {doing} {folder}: wait until it has ended, or give another folder"
        raise FileExistsError(msg) from error
    try:
        yield
    finally:
        lock.release()
