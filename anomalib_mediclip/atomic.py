# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are written whole or not at all: a full disk or a killed process leaves no part of one."""

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = re.compile(r"^unfinished\.\d+\.")  # beginning of the name of what a killed process leaves


@contextlib.contextmanager
def written_beside(path: Path | str) -> Iterator[Path]:
    """Write a file under another name, and give it its own when it is complete.

    Args:
        path (Path | str): File to write; its folder exists. A file of this name is kept until it is replaced.

    Yields:
        Path: Where to write, in the same folder and with the same extensions.

    Raises:
        OSError: If the file cannot be written, as when the disk is full.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with written_beside(Path(folder) / "table.csv") as file:
        ...         _ = file.write_text("a,b")
        ...     [path.name for path in Path(folder).iterdir()]
        ['table.csv']
    """
    path = Path(path)
    # processes of two machines may have one number; and a name may have several extensions (.nii.gz)
    unfinished = path.with_name(f"unfinished.{secrets.randbits(48)}.{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        msg = f"{path} could not be written ({error.strerror or error}). An earlier file of this name is kept."
        raise type(error)(error.errno, msg) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path | str, content: bytes | str) -> None:
    """Write a file whole or not at all; text is written in UTF-8 with the line ends it has.

    Args:
        path (Path | str): File to write; its folder exists.
        content (bytes | str): What to write.

    Raises:
        OSError: If it cannot be written; an earlier file of this name is kept then.
    """
    with written_beside(path) as unfinished:
        unfinished.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
