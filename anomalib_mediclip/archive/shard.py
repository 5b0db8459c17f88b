# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The predictions of a shard: threads read ahead of the model, and an unreadable file costs its row."""

import csv
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from anomalib_mediclip.archive.manifest import Row, read_rows, row_of
from anomalib_mediclip.archive.plan import Plan
from anomalib_mediclip.archive.predictors import Predictor, Scored
from anomalib_mediclip.atomic import written_beside
from anomalib_mediclip.io import images_in, read_image
from anomalib_mediclip.prediction.folder import UNREADABLE
from anomalib_mediclip.prediction.table import as_written, no_formula

AHEAD = 8  # images that are read before the model asks for them, beside one for each thread
LABELS = {None: "", True: "anomalous", False: "normal"}


class Report(NamedTuple):
    """What came of a shard.

    Attributes:
        shard (int): Its number.
        images (int): Images with a row, the unreadable ones included.
        unreadable (int): Those that could not be read.
        changed (int): Files that are no longer as the manifest says.
    """

    shard: int
    images: int
    unreadable: int
    changed: int


class _Read(NamedTuple):
    """An image for the model, or why there is none."""

    path: Path
    image: torch.Tensor | None
    reason: str


def predict_shard(plan: Plan, shard: int, predictor: Predictor, readers: int) -> Report:
    """Predict the files of a shard, and write their rows as one file that is whole or not there.

    Args:
        plan (Plan): Plan.
        shard (int): Number of the shard.
        predictor (Predictor): Model.
        readers (int): Threads that read.

    Returns:
        Report: What came of it.

    Raises:
        OSError: If the rows cannot be written, as when the disk is full.
    """
    images = unreadable = changed = 0

    def files() -> Iterator[Row]:
        nonlocal changed
        for row in read_rows(plan.manifest, *plan.rows_of(shard)):
            changed += row_of(row.path) != row
            yield row

    with written_beside(plan.part(shard)) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in predict_files((row.path for row in files()), predictor, readers):
            writer.writerow(map(as_written, row))
            images += 1
            unreadable += row[2] == UNREADABLE
        file.flush()
        os.fsync(file.fileno())  # a machine that loses power must not leave an empty file under the final name
    return Report(shard, images, unreadable, changed)


def predict_files(files: Iterable[Path], predictor: Predictor, readers: int) -> Iterator[tuple[str, ...]]:
    """Yield the rows of files in their order; a volume has one for each slice.

    Args:
        files (Iterable[Path]): Files.
        predictor (Predictor): Model.
        readers (int): Threads that read.

    Yields:
        tuple[str, ...]: Row, see :data:`anomalib_mediclip.prediction.table.COLUMNS`.
    """
    waiting: deque[_Read] = deque()  # in order; the model has taken the images of those that could be read

    def readable() -> Iterator[torch.Tensor]:
        for read in _read_ahead(files, predictor, readers):
            waiting.append(read._replace(image=None))
            if read.image is not None:
                yield read.image

    for scored in predictor.scores(readable()):
        while waiting[0].reason:
            yield _row(waiting.popleft())
        yield _row(waiting.popleft(), scored, predictor.threshold)
    yield from map(_row, waiting)


def _row(read: _Read, scored: Scored | None = None, threshold: str = "") -> tuple[str, ...]:
    """Return the row of an image, or of one that could not be read."""
    path = no_formula(str(read.path))
    if scored is None:
        return path, "", UNREADABLE, "", no_formula(read.reason)
    return path, scored.score, LABELS[scored.is_anomalous], threshold, ""


def _read_ahead(files: Iterable[Path], predictor: Predictor, readers: int) -> Iterator[_Read]:
    """Yield the images of files in their order, read by threads some way ahead of whoever takes them."""

    def read(path: Path) -> _Read:
        try:
            return _Read(path, predictor.prepare(read_image(path)), "")
        except Exception as error:  # decoders raise all kinds, and no file may end the others
            return _Read(path, None, str(error) or type(error).__name__)

    with ThreadPoolExecutor(readers) as threads:
        pending: deque[Future[_Read]] = deque()
        try:
            for path in (image for file in files for image in _images_of(file)):
                pending.append(threads.submit(read, path))
                if len(pending) > AHEAD + readers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _images_of(file: Path) -> list[Path]:
    """List the images of a file; one that is gone is listed, so that its row can say so."""
    return images_in(file) or ([] if file.exists() else [file])
