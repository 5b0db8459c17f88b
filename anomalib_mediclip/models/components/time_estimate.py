# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Estimate of how long a training takes, for those that take hours."""

import logging
import time
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Timer

logger = logging.getLogger(__name__)

FIRST_BATCHES = 2  # they are slower: caches are empty
LEAST_SECONDS = 5.0  # that are measured
WORTH_A_WARNING = 3600.0  # seconds


class TimeEstimate(Callback):
    """Measure the first batches of a training, and say how long it will take if that is more than an hour."""

    def __init__(self) -> None:
        self._began = 0.0
        self._batches: int | None = None
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin to count, unless the time is limited anyway."""
        del pl_module
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # declared nowhere
        limited = any(isinstance(callback, Timer) for callback in callbacks)
        self._batches = None if limited else 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        """Warn once, as soon as enough batches are measured."""
        del pl_module, args
        if self._batches is None:
            return
        self._batches += 1
        now = time.monotonic()
        if self._batches == FIRST_BATCHES:
            self._began, self._steps = now, trainer.global_step
        measured = self._batches - FIRST_BATCHES
        if measured < 1 or now - self._began < LEAST_SECONDS:
            return
        per_batch = (now - self._began) / measured
        left = per_batch * _batches_left(trainer, (trainer.global_step - self._steps) / measured)
        self._batches = None
        if left > WORTH_A_WARNING:
            logger.warning(
                "This training takes about %s more on this %s: %.1f s a batch. Use a GPU, a lite preset "
                "(configs/model/*_lite.yaml), or fewer steps (--trainer.max_steps). Ctrl+C stops it; the last "
                "checkpoint can be resumed with --ckpt_path.",
                in_words(left),
                "CPU" if trainer.strategy.root_device.type == "cpu" else "device",
                per_batch,
            )


def _batches_left(trainer: Trainer, steps_per_batch: float) -> float:
    """Return how many batches a training has left before its limit of steps or epochs."""
    left = [float("inf")]
    if trainer.max_steps >= 0 and steps_per_batch:
        left.append((trainer.max_steps - trainer.global_step) / steps_per_batch)
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        left.append((trainer.max_epochs - trainer.current_epoch) * trainer.num_training_batches - done)
    return min(left)


def in_words(seconds: float) -> str:
    """Return a time in the largest unit that fits.

    Args:
        seconds (float): Time in seconds.

    Returns:
        str: Time in words.

    Example:
        >>> in_words(5400), in_words(100_000), in_words(500_000), in_words(float("inf"))
        ('90 min', '28 h', '6 days', 'for ever')
    """
    if seconds == float("inf"):
        return "for ever"
    for name, size, least in (("days", 86_400, 3), ("h", 3600, 2), ("min", 60, 0)):
        if seconds >= least * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
