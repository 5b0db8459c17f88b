# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints every ten seconds: a few-shot epoch takes a fraction of a second, and writing one takes longer."""

import time
from typing import Any

from anomalib.callbacks import ModelCheckpoint
from lightning.pytorch import LightningModule, Trainer

INTERVAL = 10.0


class PeriodicCheckpoint(ModelCheckpoint):
    """Write the checkpoint after the first epoch, then after epochs that end 10 seconds or more later, and at the end.

    So a run that is killed loses 10 seconds and an epoch at most.

    Args:
        **options (Any): Arguments of anomalib's ``ModelCheckpoint``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._written_at = float("-inf")

    def _should_skip_saving_checkpoint(self, trainer: Trainer) -> bool:
        """Skip, besides what anomalib skips, epochs that end soon after the last checkpoint."""
        if super()._should_skip_saving_checkpoint(trainer):
            return True
        early = time.monotonic() - self._written_at < INTERVAL
        # the first process decides for all, which write together
        return bool(trainer.strategy.broadcast(early)) and not _ends_now(trainer)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._written_at = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the last epochs learnt, if the run ended where nobody could foresee it."""
        if not super()._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        super().on_train_end(trainer, pl_module)


def _ends_now(trainer: Trainer) -> bool:
    """Tell whether this epoch is the last one as far as can be foreseen."""
    last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    last_step = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return bool(last_epoch or last_step or trainer.should_stop)
