# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What a model remembers of its training: for the card that goes with an export."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.trainer.states import TrainerFn

from anomalib_mediclip.versions import installed_versions

if TYPE_CHECKING:  # what it is mixed into
    from anomalib.models.components import AnomalibModule as Host
else:
    Host = object

RECORD = "training_record"  # key in checkpoints; those of older versions lack it


class RecordHooks(Host):
    """Mixin for an ``AnomalibModule``, named before it among the bases.

    Attributes:
        training_record (dict[str, Any]): Plain data: ``data``, ``versions``, ``epochs``, ``steps``, and ``metrics`` of
            the test. What is not known is absent.
    """

    training_record: dict[str, Any] = {}  # noqa: RUF012  # replaced, never changed

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what is known of the training.

        Args:
            checkpoint (dict[str, Any]): Checkpoint to be written, changed in place.
        """
        super().on_save_checkpoint(checkpoint)
        trainer: Any = self._trainer
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            self.training_record = {
                "data": _describe_data(getattr(trainer, "datamodule", None)),
                "versions": installed_versions(),
                "epochs": trainer.fit_loop.epoch_progress.current.processed,
                "steps": trainer.global_step,
            }
        checkpoint[RECORD] = self.training_record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember what a checkpoint says of its training.

        Args:
            checkpoint (dict[str, Any]): Checkpoint that was read.
        """
        super().on_load_checkpoint(checkpoint)
        self.training_record = checkpoint.get(RECORD, {})

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # as anomalib declares it
        cls, checkpoint_path: Path | str, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint, and the test metrics that lie beside it; see Lightning's method of this name.

        Args:
            checkpoint_path (Path | str): Checkpoint.
            *args (Any): Arguments of anomalib's method.
            **kwargs (Any): Arguments of anomalib's method.

        Returns:
            Any: Model.
        """
        model: Any = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        model.training_record = {**model.training_record, "metrics": read_metrics(checkpoint_path)}
        return model

    def on_test_end(self) -> None:
        """Keep the metrics of a training's own test beside its checkpoint."""
        super().on_test_end()
        trainer = self.trainer
        written: str = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if trainer.is_global_zero and written and trainer.global_step:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "train_loss"}
            write_metrics(written, metrics)
            self.training_record = {**self.training_record, "metrics": metrics}


def _describe_data(datamodule: Any) -> dict[str, Any]:
    """Describe what a model was trained on, in plain data."""
    if datamodule is None:
        return {}
    return datamodule.describe() if hasattr(datamodule, "describe") else {"data_set": datamodule.name}


def metrics_file(checkpoint: Path | str) -> Path:
    """Return where the test metrics of a checkpoint are kept.

    Args:
        checkpoint (Path | str): Checkpoint.

    Returns:
        Path: ``<name>.metrics.json`` beside it.
    """
    return Path(checkpoint).with_suffix(".metrics.json")


def write_metrics(checkpoint: Path | str, metrics: dict[str, float]) -> None:
    """Keep the test metrics of a checkpoint beside it: they are known only after it was written.

    Args:
        checkpoint (Path | str): Checkpoint.
        metrics (dict[str, float]): Metrics by name.
    """
    content = {"checkpoint": _digest(Path(checkpoint)), "metrics": metrics}
    metrics_file(checkpoint).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_metrics(checkpoint: Path | str) -> dict[str, float]:
    """Return what :func:`write_metrics` kept of this very checkpoint.

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


def _digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
