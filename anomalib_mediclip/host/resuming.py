# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Runs that count steps, resumed from a checkpoint that was written at the end of an epoch.

Lightning takes such a run for one that stopped within its last epoch whenever ``max_steps`` is given. It then goes on
counting the batches of the finished epoch, so that the next epoch has fewer batches than it should, and other ones.
"""

from lightning import Trainer


def begin_next_epoch(trainer: Trainer) -> None:
    """Let a resumed run begin the next epoch, as an uninterrupted one would, if the last one was finished.

    Args:
        trainer (Trainer): Trainer whose training starts, before its first epoch.
    """
    fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    if not (epoch_loop.restarting and epoch_loop.batch_progress.is_last_batch):
        return
    if fit_loop.restarted_on_epoch_end:  # the checkpoint was written before the epoch was counted
        fit_loop.epoch_progress.increment_completed()
    fit_loop.reset_restart_stage()
    epoch_loop.reset_restart_stage()
    epoch_loop.restarting = False
    fit_loop._restarting = False  # the setter would set it again because there is a limit of steps
