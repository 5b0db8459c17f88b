# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints every ten seconds, or less often where they are large.

A few-shot epoch takes a fraction of a second, and writing a checkpoint takes longer.
"""

import time
import warnings
from typing import Any

from anomalib.callbacks import ModelCheckpoint
from lightning.pytorch import LightningModule, Trainer

INTERVAL = 10.0  # seconds
FAST_WRITE = 0.2  # seconds: where writing takes longer, the interval grows in proportion


class PeriodicCheckpoint(ModelCheckpoint):
    """Write the checkpoint after the first epoch, then after epochs that end 10 seconds or more later, and at the end.

    So a run that is killed loses 10 seconds and an epoch at most. Where writing takes longer than 0.2 seconds, as with
    models of hundreds of megabytes, the time between is fifty times as long as the last writing took: at most a
    fiftieth of a run goes into writing.

    Args:
        **options (Any): Arguments of anomalib's ``ModelCheckpoint``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._written_at = float("-inf")
        self._write_seconds = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew: a resumed run has written nothing yet."""
        del trainer, pl_module
        self._written_at = float("-inf")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state without Lightning's warning that the folder is another: each run has its own."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            super().load_state_dict(state_dict)

    def _should_skip_saving_checkpoint(self, trainer: Trainer) -> bool:
        """Skip, besides what anomalib skips, epochs that end soon after the last checkpoint."""
        if super()._should_skip_saving_checkpoint(trainer):
            return True
        wait = INTERVAL * max(1.0, self._write_seconds / FAST_WRITE)
        early = time.monotonic() - self._written_at < wait
        return bool(trainer.strategy.broadcast(early))  # the first process decides for all, which write together

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        began = time.monotonic()
        super()._save_checkpoint(trainer, filepath)
        self._written_at = time.monotonic()
        self._write_seconds = self._written_at - began

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the weights that remain: they are calibrated by now, and may be an average over the last epochs."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # declared nowhere
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        super().on_train_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of a run that was finished before: the folder of this run must hold it too."""
        if trainer.ckpt_path and self._written_at == float("-inf"):
            self.on_train_end(trainer, pl_module)
