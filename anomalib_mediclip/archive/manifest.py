# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The list of all files of an archive, with size and time of change, from which shards are cut.

It is a Parquet file of plain numbers and bytes that is written and read piece by piece, so that its length costs no
memory.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from anomalib_mediclip.atomic import written_beside
from anomalib_mediclip.io import stream_image_files

MANIFEST = "manifest.parquet"
PIECE = 4096  # rows that are written and read at once
SCHEMA = pa.schema([("path", pa.binary()), ("size", pa.int64()), ("modified", pa.int64())])


class Row(NamedTuple):
    """A file of the archive.

    Attributes:
        path (Path): File.
        size (int): Bytes; -1 if it is gone.
        modified (int): Time of its last change, in ns.
    """

    path: Path
    size: int
    modified: int


def row_of(path: Path) -> Row:
    """Return the row of a file as it is now.

    Args:
        path (Path): File, which may be gone.

    Returns:
        Row: Row.
    """
    try:
        status = path.stat()
    except OSError:
        return Row(path, -1, 0)
    return Row(path, status.st_size, status.st_mtime_ns)


def write_manifest(images: Path, output: Path) -> int:
    """List the image files below a folder.

    Args:
        images (Path): Folder to search.
        output (Path): Folder of the results, which is not searched.

    Returns:
        int: Number of files.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image.
        OSError: If the list cannot be written.
    """
    number = _write((row_of(path) for path in stream_image_files(images, [output])), output / MANIFEST)
    if not number:
        (output / MANIFEST).unlink()
        msg = f"no images in {images}: no DICOM, NIfTI or picture was found in it or below it"
        raise ValueError(msg)
    return number


def _write(rows: Iterator[Row], target: Path) -> int:
    """Write rows piece by piece into a file that is whole or not there, and return their number."""
    number = 0
    with written_beside(target) as unfinished, pq.ParquetWriter(unfinished, SCHEMA) as writer:
        while piece := list(islice(rows, PIECE)):
            paths = [os.fsencode(row.path) for row in piece]
            columns = [paths, [row.size for row in piece], [row.modified for row in piece]]
            writer.write_table(pa.table(columns, schema=SCHEMA))
            number += len(piece)
    return number


def read_rows(manifest: Path, start: int = 0, stop: int | None = None) -> Iterator[Row]:
    """Read rows of a manifest, those of a shard or all.

    Args:
        manifest (Path): File.
        start (int, optional): First row. Defaults to ``0``.
        stop (int | None, optional): First row that is not read. Defaults to ``None``: up to the end.

    Yields:
        Row: Rows in their order.
    """
    with pq.ParquetFile(manifest) as file:
        stop = file.metadata.num_rows if stop is None else stop
        for group in range(start // PIECE, -(-stop // PIECE)):
            first = group * PIECE
            table = file.read_row_group(group)
            wanted = table.slice(max(0, start - first), min(stop, first + PIECE) - max(start, first))
            for path, size, modified in zip(*(column.to_pylist() for column in wanted.columns), strict=True):
                yield Row(Path(os.fsdecode(path)), size, modified)


def find_changed(manifest: Path) -> list[int]:
    """Find the files that have changed, or have gone, since they were listed.

    Args:
        manifest (Path): File.

    Returns:
        list[int]: Their rows.
    """
    return [number for number, row in enumerate(read_rows(manifest)) if row_of(row.path) != row]


def renew_rows(manifest: Path, changed: Sequence[int]) -> None:
    """Write the present size and time of change of files into a manifest.

    Args:
        manifest (Path): File.
        changed (Sequence[int]): Rows of these files.
    """
    wanted = set(changed)
    rows = (row_of(row.path) if number in wanted else row for number, row in enumerate(read_rows(manifest)))
    _write(rows, manifest)
