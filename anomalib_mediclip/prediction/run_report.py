# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Report of a prediction, ``run.json``: with what it was made, on what, and how long it took."""

import json
import platform
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning import Callback, LightningModule, Trainer

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.display import describe_display
from anomalib_mediclip.evaluation.calibration import describe_thresholds
from anomalib_mediclip.io import hash_of_file
from anomalib_mediclip.io.volumes import file_of
from anomalib_mediclip.prediction.folder import PredictionDataset, is_unreadable, predicted_dataset
from anomalib_mediclip.prediction.table import gets_table
from anomalib_mediclip.versions import PACKAGES, installed_versions

REPORT = "run.json"
READERS = ("pydicom", "nibabel", "highdicom")


class RunReport(Callback):
    """Writes ``run.json`` beside the table of predictions; it names no file but the checkpoint, and no patient.

    A test has a report where it has a table.
    """

    def __init__(self) -> None:
        self._images = self._unreadable = 0
        self._begun = 0.0
        self._is_written = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        del pl_module
        self._images = self._unreadable = 0
        self._begun = time.perf_counter()
        self._is_written = trainer.predicting or gets_table(trainer)

    on_test_start = on_predict_start

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images of a batch."""
        del trainer, pl_module, outputs, batch_idx, dataloader_idx
        self._images += batch.batch_size
        self._unreadable += sum(map(is_unreadable, batch))

    on_test_batch_end = on_predict_batch_end

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report, with the images of all processes."""
        if not self._is_written:
            return
        counts = torch.tensor([self._images, self._unreadable], device=pl_module.device)
        images, unreadable = torch.as_tensor(trainer.strategy.reduce(counts, reduce_op="sum")).tolist()
        if not trainer.is_global_zero:
            return
        report = {
            "versions": installed_versions((*PACKAGES, *READERS)),
            "model": f"{type(pl_module).__module__}.{type(pl_module).__qualname__}",
            "checkpoint": _describe_checkpoint(trainer),
            "device": _describe_device(pl_module.device),
            "precision": str(trainer.precision),
            "files": _number_of_files(trainer),
            "images": images,
            "unreadable": unreadable,
            "seconds": round(time.perf_counter() - self._begun, 3),
            "thresholds": describe_thresholds(pl_module.post_processor),
            "display": describe_display(),
        }
        write_whole(Path(trainer.default_root_dir) / REPORT, json.dumps(report, indent=2, allow_nan=False) + "\n")

    on_test_end = on_predict_end


def checkpoint_hash(trainer: Trainer) -> str | None:
    """Return the SHA-256 of the checkpoint that a trainer predicts with.

    Args:
        trainer (Trainer): Trainer that predicts.

    Returns:
        str | None: 64 hexadecimal digits; None where it was given no checkpoint, as right after a training.
    """
    path = trainer.ckpt_path
    if not path or not Path(path).is_file():
        return None
    return _hash(str(path), Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _hash(path: str, modified: int) -> str:
    """Return the hash of a file; every volume of a run asks for it."""
    del modified
    return hash_of_file(path)


def _describe_checkpoint(trainer: Trainer) -> dict[str, str] | None:
    """Return path and hash of the checkpoint, if there is one."""
    digest = checkpoint_hash(trainer)
    return None if digest is None else {"path": str(trainer.ckpt_path), "sha256": digest}


def _describe_device(device: torch.device) -> str:
    """Return the device and what it is called."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{device} ({name})"


def _number_of_files(trainer: Trainer) -> int | None:
    """Return the number of files of a predicted folder, a volume counted once; None where it is not known."""
    dataset = predicted_dataset(trainer, 0) if trainer.predicting else None
    return len({file_of(path)[0] for path in dataset.paths}) if isinstance(dataset, PredictionDataset) else None
