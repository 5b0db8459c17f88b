# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Large prediction jobs: a folder read ahead of the model, and a table of what was found.

anomalib reads a folder one image at a time between two steps of the model, and ends at the first damaged file. Here
worker processes decode, an unreadable file costs its own row only, and every batch is on disk before the next one runs.
"""

import csv
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, ImageItem, PredictDataset
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import Resize, Transform
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.io import find_images, has_transparency, is_deep, natural_key, read_image

logger = logging.getLogger(__name__)

BATCH_SIZE = 8  # 32 are no faster on a CPU, and take a quarter more memory
MAX_WORKERS = 4
MAX_IMAGES_WITHOUT_WORKERS = 64
UNREADABLE = "unreadable"
LISTED_IN_ERRORS = 5
COLUMNS = ("file", "score", "label", "threshold")


class PredictionDataset(Dataset):
    """The images of a folder, at their full depth.

    Args:
        path (str | Path): Image, or folder that is searched recursively.
        image_size (tuple[int, int]): Height and width in pixels that stand in for an unreadable image.
        transform (Transform | None, optional): Applied to every image. Defaults to ``None``.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the folder holds no image.
    """

    def __init__(self, path: str | Path, image_size: tuple[int, int], transform: Transform | None = None) -> None:
        self.paths = [Path(path)] if Path(path).is_file() else find_images(path)
        self.image_size = image_size
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageItem:
        """Return an image, or a black one and the reason in ``explanation``.

        Args:
            index (int): Position in ``paths``.

        Returns:
            ImageItem: Image of shape ``(3, H, W)``, float32 RGB in [0, 1]; its path; an empty ``explanation`` or
                ``"unreadable: ..."``.
        """
        path, explanation = self.paths[index], ""
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            image, explanation = torch.zeros(3, *self.image_size), f"{UNREADABLE}: {error}"
        image = self.transform(image) if self.transform else image
        return ImageItem(image=image, image_path=str(path), explanation=explanation)


def is_unreadable(item: ImageItem) -> bool:
    """Tell whether an item stands in for a file that could not be read.

    Args:
        item (ImageItem): Item of a :class:`PredictionDataset`, or any other.

    Returns:
        bool: True if there is nothing to be predicted.
    """
    return (item.explanation or "").startswith(f"{UNREADABLE}: ")


def prediction_loader(path: str | Path, image_size: tuple[int, int], transform: Transform | None) -> DataLoader:
    """Return a loader of a folder, with worker processes if the folder is large.

    Images are resized while they are loaded, and batched, if that is all that the pre-processor does; otherwise they
    come one at a time as they are.

    Args:
        path (str | Path): Image or folder.
        image_size (tuple[int, int]): Height and width in pixels that the model expects.
        transform (Transform | None): Transform of the model's pre-processor, which is applied again to what is loaded.

    Returns:
        DataLoader: Loader in natural order of the files.
    """
    resizes = isinstance(transform, Resize) and len(transform.size or ()) == 2  # height and width
    dataset = PredictionDataset(path, image_size, transform if resizes else None)
    workers = min(MAX_WORKERS, os.cpu_count() or 1) if len(dataset) > MAX_IMAGES_WITHOUT_WORKERS else 0
    return DataLoader(
        dataset, batch_size=BATCH_SIZE if resizes else 1, num_workers=workers, collate_fn=ImageBatch.collate
    )


def read_again(batch: ImageBatch, dataset: Dataset) -> None:
    """Replace the images that anomalib's own prediction data set saturates (16-bit) or reads transparent.

    Args:
        batch (ImageBatch): Batch, changed in place.
        dataset (Dataset): Data set that the batch was read from; of any other kind, nothing is done.
    """
    if not isinstance(dataset, PredictDataset) or batch.image is None:
        return
    for index, path in enumerate(batch.image_path or []):
        if is_deep(path) or has_transparency(path):
            batch.image[index] = resize(read_image(path), list(batch.image.shape[-2:]), antialias=True).to(batch.image)


class PredictionTable(Callback):
    """Writes ``predictions.csv`` into the folder of the run, each batch as soon as it is predicted.

    The columns are ``file``; ``score``, calibrated; ``label``, which is ``normal``, ``anomalous`` or ``unreadable``;
    and ``threshold``, where scores are cut. With several processes each writes a table of its own, and the first joins
    them in the end.
    """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the table of this process.

        Args:
            trainer (Trainer): Trainer, whose folder the table is written to.
            pl_module (LightningModule): Model.
        """
        del pl_module
        path = _part(trainer, trainer.global_rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        _append(path, [COLUMNS])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of a batch.

        Args:
            trainer (Trainer): Trainer.
            pl_module (LightningModule): Model, whose post-processor holds the threshold.
            outputs (Any): Output of the step.
            batch (ImageBatch): Batch with predictions.
            batch_idx (int): Number of the batch.
            dataloader_idx (int, optional): Number of the data loader. Defaults to ``0``.
        """
        del outputs, batch_idx, dataloader_idx
        threshold = getattr(pl_module.post_processor, "normalized_image_threshold", None)
        _append(_part(trainer, trainer.global_rank), _rows(batch, threshold))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the tables of all processes.

        Args:
            trainer (Trainer): Trainer.
            pl_module (LightningModule): Model.

        Raises:
            ValueError: If a file could not be read; everything else is predicted and written by then.
        """
        del pl_module
        trainer.strategy.barrier("predictions.csv")
        if not trainer.is_global_zero:
            return
        table = Path(trainer.default_root_dir) / "predictions.csv"
        rows = _joined([_part(trainer, rank) for rank in range(trainer.world_size)], table)
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
