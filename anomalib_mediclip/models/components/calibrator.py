# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration of the weights that a fit leaves, whatever ended it.

The thresholds of a model belong to the weights that predicted the validation set. A fit may end at its last epoch, at
a step, at a time, by a callback, and a callback may replace the weights by an average when it ends. So the validation
set is predicted when the fit has ended. Before that nobody needs thresholds, and validation is switched off, unless
somebody may read its metrics.
"""

import logging
from typing import Any

from lightning import Callback, Trainer

from anomalib_mediclip.evaluation.calibration import expected_false_alarms_of
from anomalib_mediclip.host.post_processor import forget_thresholds
from anomalib_mediclip.models.components.training_record import is_finished

logger = logging.getLogger(__name__)

# names of the callbacks that Lightning, anomalib and this plugin add to every run, and of some that read nothing
READ_NO_METRICS = {
    "DeviceStatsMonitor",
    "GradientAccumulationScheduler",
    "LearningRateMonitor",
    "MaxStepsProgressCallback",
    "ModelSummary",
    "PeriodicCheckpoint",
    "ProgressBar",
    "ResultsFolder",
    "SaveConfigCallback",
    "StochasticWeightAveraging",
    "Timer",
    "TimerCallback",
    "WeightAveraging",
}


class Calibrator(Callback):
    """Has a model calibrated when its fit ends, and in every epoch where somebody may read metrics of validation."""

    def __init__(self) -> None:
        self._limit: int | float | None = None
        self._validated = ""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Calibrate a finished run that is not, and switch validation off if nobody reads its metrics."""
        if trainer.ckpt_path and not pl_module.is_calibrated and is_finished(trainer, pl_module.training_record):
            _validate(trainer)  # nothing will be trained, and none of the hooks below is called
        if not _is_followed(trainer, pl_module):
            self._limit, trainer.limit_val_batches = trainer.limit_val_batches, 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Recognise the weights that are validated: a callback may have put an average in their place until the end."""
        del trainer
        self._validated = pl_module.hash_learnt()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Note to which weights the new thresholds belong."""
        if not trainer.sanity_checking:
            pl_module.calibrated_weights = self._validated

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Calibrate the weights that remain, if they are others than those validated last."""
        self._switch_validation_on(trainer)
        if not pl_module.is_calibrated:
            _validate(trainer)
        alarms = expected_false_alarms_of(pl_module.post_processor)
        if alarms is not None:
            logger.info(
                "Calibrated. About %.0f %% of normal images that are like the support images will be called anomalous; "
                "--model.post_processor.image_sensitivity below 0.5 lowers that.",
                100 * alarms,
            )

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Forget thresholds of other weights than those that an interrupted fit leaves."""
        del exception
        self._switch_validation_on(trainer)
        if trainer.training and not pl_module.is_calibrated:
            forget_thresholds(pl_module.post_processor)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Give the trainer back as it was: a fit that finds nothing to train ends without ``on_train_end``."""
        del pl_module, stage
        self._switch_validation_on(trainer)

    def _switch_validation_on(self, trainer: Trainer) -> None:
        if self._limit is not None:
            trainer.limit_val_batches, self._limit = self._limit, None


def _is_followed(trainer: Trainer, pl_module: Any) -> bool:
    """Tell whether somebody may read metrics of validation: they must then be there in every epoch."""
    harmless = READ_NO_METRICS | {type(callback).__name__ for callback in pl_module.configure_callbacks()}
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # declared nowhere
    names = [{base.__name__ for base in type(callback).__mro__} for callback in callbacks]
    return (
        any(harmless.isdisjoint(classes) for classes in names)
        or any(scheduler.monitor or scheduler.reduce_on_plateau for scheduler in trainer.lr_scheduler_configs)
        or bool(getattr(pl_module.evaluator, "val_metrics", ()))
        or trainer.check_val_every_n_epoch != 1
        or trainer.val_check_interval != 1
    )


def _validate(trainer: Trainer) -> None:
    """Predict the validation set within a fit, as after an epoch."""
    if not trainer.enable_validation:
        return
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
