# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Table of predictions, written batch by batch."""

import csv
import logging
from collections.abc import Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.visualization import ImageVisualizer
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from anomalib_mediclip.evaluation.selection import not_repeated
from anomalib_mediclip.io import natural_key
from anomalib_mediclip.prediction.folder import UNREADABLE, is_unreadable
from anomalib_mediclip.prediction.pictures import pictures_folder

logger = logging.getLogger(__name__)

LISTED_IN_ERRORS = 5
MAX_WARNINGS = 5
COLUMNS = ("file", "score", "label", "threshold", "reason")


class PredictionTable(BasePredictionWriter):
    """Writes ``predictions.csv`` into the folder of the run, each batch as soon as it is predicted.

    The columns are ``file``; ``score``, calibrated; ``label``, which is ``normal``, ``anomalous`` or ``unreadable``;
    ``threshold``, where scores are cut; and ``reason``, why a file is unreadable. With several processes each writes a
    table of its own, and the first joins them at the end. A test has a table where it has pictures, unless its folder
    holds one.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._unreadable = 0
        self._rows: list[list[str]] = []
        self._is_written = False

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the table of this process.

        Raises:
            FileExistsError: If the folder holds a table.
        """
        del pl_module
        self._unreadable = 0
        for existing in (_part(trainer, trainer.global_rank), table_of(trainer)):
            if existing.exists():
                msg = f"{existing} holds the predictions of another run. Give another folder, or move the file away."
                raise FileExistsError(msg)
        self._begin(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the table of a test, if it gets one."""
        del pl_module
        self._is_written = gets_table(trainer)
        if self._is_written:
            self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        """Begin the table of this process."""
        path = _part(trainer, trainer.global_rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        append_rows(path, [COLUMNS])

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the rows of a batch."""
        del prediction, batch_indices, batch_idx, dataloader_idx
        self._write(trainer, pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of a tested batch."""
        del outputs
        if self._is_written:
            chosen = not_repeated(trainer.test_dataloaders, batch, batch_idx, dataloader_idx).tolist()
            self._write(trainer, pl_module, compress(batch, chosen))

    def _write(self, trainer: Trainer, pl_module: LightningModule, items: Iterable[ImageItem]) -> None:
        """Write the rows of images, and warn of those that could not be read."""
        threshold = getattr(pl_module.post_processor, "normalized_image_threshold", None)
        rows = [_row(item, threshold) for item in items]
        append_rows(_part(trainer, trainer.global_rank), rows)
        for *_, reason in (row for row in rows if row[2] == UNREADABLE):
            self._unreadable += 1
            if self._unreadable <= MAX_WARNINGS:
                logger.warning("%s", reason)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the tables of all processes, so that what reads the table at the end finds it complete."""
        del pl_module
        trainer.strategy.barrier("predictions.csv")
        if trainer.is_global_zero:
            self._rows = _joined([_part(trainer, rank) for rank in range(trainer.world_size)], table_of(trainer))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the tables of a test."""
        if self._is_written:
            self.on_predict_epoch_end(trainer, pl_module)
            self._rows = []

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the results are.

        Raises:
            ValueError: If a file could not be read; all others are predicted and written by then.
        """
        del pl_module
        if self._unreadable > MAX_WARNINGS:
            logger.warning("%d more files could not be read.", self._unreadable - MAX_WARNINGS)
        if not trainer.is_global_zero:
            return
        rows, self._rows, table = self._rows, [], table_of(trainer)
        logger.info("Wrote the predictions of %d images to %s%s", len(rows), table, _pictures(trainer))
        unreadable = [row[0] for row in rows if row[2] == UNREADABLE]
        if unreadable:
            more = len(unreadable) - LISTED_IN_ERRORS
            listed = ", ".join(unreadable[:LISTED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
            msg = (
                f"{len(unreadable)} of {len(rows)} images could not be read: {listed}. "
                f"All others are predicted; {table} holds the reasons. Repair or replace the files."
            )
            raise ValueError(msg)


def _row(item: ImageItem, threshold: torch.Tensor | None) -> tuple[str, ...]:
    """Return the row of an image."""
    path = no_formula(str(item.image_path or ""))
    if is_unreadable(item):
        return path, "", UNREADABLE, "", reason_of(item)
    return path, in_digits(item.pred_score), label_of(item), in_digits(threshold), ""


def label_of(item: ImageItem) -> str:
    """Return the label of an item.

    Args:
        item (ImageItem): Predicted item.

    Returns:
        str: ``normal``, ``anomalous`` or ``unreadable``; empty where no label was predicted.
    """
    if is_unreadable(item):
        return UNREADABLE
    return "" if item.pred_label is None else ("anomalous" if bool(item.pred_label) else "normal")


def in_digits(value: torch.Tensor | float | None) -> str:
    """Return a number with the nine digits that tell any two float32 apart; nothing for None."""
    return "" if value is None else f"{float(value):.9g}"


def reason_of(item: ImageItem) -> str:
    """Return why the file of an item could not be read, without a beginning that a spreadsheet takes for a formula."""
    return no_formula((item.explanation or "").removeprefix(f"{UNREADABLE}: "))


def no_formula(path: str) -> str:
    """Return the same path with a beginning that no spreadsheet takes for a formula.

    Args:
        path (str): Path, or a text that begins with one.

    Returns:
        str: The path, with ``./`` before ``=``, ``+``, ``-``, ``@`` and tabulators.

    Example:
        >>> no_formula("=cmd/a.png")
        './=cmd/a.png'
    """
    return f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else path


def is_shown(trainer: Trainer) -> bool:
    """Tell whether a trainer writes pictures, which ``--model.visualizer false`` prevents."""
    return bool(_visualizers(trainer))


def gets_table(trainer: Trainer) -> bool:
    """Tell, at the start of a test, whether it gets a table: where it has pictures, and no former table is kept."""
    return is_shown(trainer) and not table_of(trainer).exists()


def _visualizers(trainer: Trainer) -> list[ImageVisualizer]:
    """Return the callbacks that write pictures."""
    return [callback for callback in trainer.callbacks if isinstance(callback, ImageVisualizer)]  # type: ignore[attr-defined]


def _pictures(trainer: Trainer) -> str:
    """Say where the pictures are, if there are any."""
    folders = [pictures_folder(trainer, one) for one in _visualizers(trainer)]
    return "".join(f", and their pictures to {folder}" for folder in folders if folder.is_dir())


def table_of(trainer: Trainer) -> Path:
    """Return the table of the predictions of a run, of all processes."""
    return Path(trainer.default_root_dir) / "predictions.csv"


def _part(trainer: Trainer, rank: int) -> Path:
    """Return the table that one process writes: the table itself if there is no other process."""
    table = table_of(trainer)
    return table if trainer.world_size == 1 else table.with_name(f"predictions_{rank}.csv")


def append_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Append rows to a table.

    Args:
        path (Path): Table, which is made if there is none.
        rows (Iterable[Sequence[str]]): Rows.
    """
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(map(as_written, row) for row in rows)


def as_written(text: str) -> str:
    """Return a text with escapes for what CSV in UTF-8 cannot hold: undecodable bytes and carriage returns.

    Args:
        text (str): Field.

    Returns:
        str: Field as a table holds it.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\r", "\\r")


def _joined(parts: list[Path], table: Path) -> list[list[str]]:
    """Join tables into one, in natural order of the files, and return its rows."""
    rows: list[list[str]] = []
    for part in parts:
        with part.open(encoding="utf-8", newline="") as file:
            rows += list(csv.reader(file))[1:]
    if parts != [table]:
        rows.sort(key=lambda row: natural_key(row[0]))
        append_rows(table, [COLUMNS, *rows])
        for part in parts:
            part.unlink()
    return rows
