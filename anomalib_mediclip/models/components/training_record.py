# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Training record: data set, versions, epochs and steps in the checkpoint, test metrics in a file beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from anomalib_mediclip.versions import installed_versions

RECORD = "training_record"  # key in checkpoints


def describe_training(trainer: Trainer) -> dict[str, Any]:
    """Describe a training that runs.

    Args:
        trainer (Trainer): Trainer that fits a model.

    Returns:
        dict[str, Any]: Plain data: ``data``, ``versions``, ``epochs`` and ``steps``.
    """
    progress: Any = trainer.fit_loop.epoch_progress.current  # declared without ``processed``
    return {
        "data": _describe_data(getattr(trainer, "datamodule", None)),
        "versions": installed_versions(),
        "epochs": progress.processed,
        "steps": trainer.global_step,
    }


class MetricsRecorder(Callback):
    """Writes the metrics of a training's own test beside its checkpoint: they are known only after it was written."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the metrics, and add them to the model's ``training_record``."""
        written: str = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if trainer.is_global_zero and written and trainer.global_step:
            metrics = {
                name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("train_")
            }
            write_metrics(written, metrics)
            model: Any = pl_module
            model.training_record = {**model.training_record, "metrics": metrics}


def metrics_file(checkpoint: Path | str) -> Path:
    """Return the file of a checkpoint's test metrics.

    Args:
        checkpoint (Path | str): Checkpoint.

    Returns:
        Path: ``<name>.metrics.json`` beside it.
    """
    return Path(checkpoint).with_suffix(".metrics.json")


def write_metrics(checkpoint: Path | str, metrics: dict[str, float]) -> None:
    """Write the test metrics of a checkpoint beside it, with the checkpoint's digest.

    Args:
        checkpoint (Path | str): Checkpoint.
        metrics (dict[str, float]): Metrics by name.
    """
    content = {"checkpoint": _digest(Path(checkpoint)), "metrics": metrics}
    metrics_file(checkpoint).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_metrics(checkpoint: Path | str) -> dict[str, float]:
    """Read the test metrics that :func:`write_metrics` wrote for this very checkpoint.

    Args:
        checkpoint (Path | str): Checkpoint.

    Returns:
        dict[str, float]: Metrics by name; empty when there are none, or those of another checkpoint.
    """
    file = metrics_file(checkpoint)
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content["metrics"] if content["checkpoint"] == _digest(Path(checkpoint)) else {}


def _describe_data(datamodule: Any) -> dict[str, Any]:
    """Describe the data of a training, in plain data."""
    if datamodule is None:
        return {}
    return datamodule.describe() if hasattr(datamodule, "describe") else {"data_set": datamodule.name}


def _digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
