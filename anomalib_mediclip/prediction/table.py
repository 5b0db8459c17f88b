# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Table of predictions, written batch by batch."""

import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from anomalib_mediclip.io import natural_key
from anomalib_mediclip.prediction.folder import UNREADABLE, is_unreadable

logger = logging.getLogger(__name__)

LISTED_IN_ERRORS = 5
COLUMNS = ("file", "score", "label", "threshold")


class PredictionTable(BasePredictionWriter):
    """Writes ``predictions.csv`` into the folder of the run, each batch as soon as it is predicted.

    The columns are ``file``; ``score``, calibrated; ``label``, which is ``normal``, ``anomalous`` or ``unreadable``;
    and ``threshold``, where scores are cut. With several processes each writes a table of its own, and the first joins
    them at the end.
    """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the table of this process."""
        del pl_module
        path = _part(trainer, trainer.global_rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        _append(path, [COLUMNS])

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
        threshold = getattr(pl_module.post_processor, "normalized_image_threshold", None)
        _append(_part(trainer, trainer.global_rank), _rows(batch, threshold))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the tables of all processes.

        Raises:
            ValueError: If a file could not be read; all others are predicted and written by then.
        """
        del pl_module
        trainer.strategy.barrier("predictions.csv")
        if not trainer.is_global_zero:
            return
        table = Path(trainer.default_root_dir) / "predictions.csv"
        rows = _joined([_part(trainer, rank) for rank in range(trainer.world_size)], table)
        logger.info("Wrote the predictions of %d images to %s", len(rows), table)
        unreadable = [row[0] for row in rows if row[2] == UNREADABLE]
        if unreadable:
            listed = ", ".join(unreadable[:LISTED_IN_ERRORS]) + (", ..." if len(unreadable) > LISTED_IN_ERRORS else "")
            msg = (
                f"{len(unreadable)} of {len(rows)} images could not be read: {listed}. "
                f"All others are predicted; see {table}. Repair or delete the files."
            )
            raise ValueError(msg)


def _rows(batch: ImageBatch, threshold: torch.Tensor | None) -> Iterator[tuple[str, ...]]:
    """Return the rows of a batch, numbers with the nine digits that tell any two float32 apart."""
    for item in batch:
        path = str(item.image_path or "")
        if is_unreadable(item):
            logger.warning("%s", item.explanation)
            yield path, "", UNREADABLE, ""
            continue
        label = "" if item.pred_label is None else ("anomalous" if bool(item.pred_label) else "normal")
        score, cut = (None if value is None else f"{float(value):.9g}" for value in (item.pred_score, threshold))
        yield path, score or "", label, cut or ""


def _part(trainer: Trainer, rank: int) -> Path:
    """Return the table that one process writes: the table itself if there is no other process."""
    name = "predictions.csv" if trainer.world_size == 1 else f"predictions_{rank}.csv"
    return Path(trainer.default_root_dir) / name


def _append(path: Path, rows: Any) -> None:
    """Append rows to a table."""
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _joined(parts: list[Path], table: Path) -> list[list[str]]:
    """Join tables into one, in natural order of the files, and return its rows."""
    rows: list[list[str]] = []
    for part in parts:
        with part.open(encoding="utf-8", newline="") as file:
            rows += list(csv.reader(file))[1:]
    if parts != [table]:
        rows.sort(key=lambda row: natural_key(row[0]))
        table.unlink(missing_ok=True)
        _append(table, [COLUMNS, *rows])
        for part in parts:
            part.unlink()
    return rows
