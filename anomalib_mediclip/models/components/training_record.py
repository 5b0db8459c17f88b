# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Records of a training and of its test, each with the weights it belongs to.

The record of the training is in the checkpoint. That of the test is a file beside it, because the test comes later. It
names the weights, the thresholds, the data set and the number of images, and is written only if the checkpoint holds
these very weights and thresholds, and the test set is that of the data the model was trained on, whole.
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.display import describe_display
from anomalib_mediclip.evaluation.calibration import describe_thresholds
from anomalib_mediclip.host.checkpoint_io import read_checkpoint
from anomalib_mediclip.versions import installed_versions

logger = logging.getLogger(__name__)

RECORD = "training_record"  # key in checkpoints
CORRECTIONS = "corrections"  # key in records, of what was changed after the training


def describe_training(trainer: Trainer) -> dict[str, Any]:
    """Describe a training that runs.

    Args:
        trainer (Trainer): Trainer that fits a model.

    Returns:
        dict[str, Any]: Plain data: ``data``, ``display`` (see :func:`anomalib_mediclip.display.describe_display`),
            ``versions``, ``epochs``, ``steps`` and ``seed``, that of the model.
    """
    progress: Any = trainer.fit_loop.epoch_progress.current  # declared without ``processed``
    model: Any = trainer.lightning_module
    return {
        "data": _describe_data(getattr(trainer, "datamodule", None)),
        "display": describe_display(),
        "versions": installed_versions(),
        "epochs": progress.processed,
        "steps": trainer.global_step,
        "seed": model.used_seed,
    }


def warn_of_other_display(record: Mapping[str, Any]) -> None:
    """Warn if DICOM and NIfTI are shown in another window or plane than when the model was trained.

    Args:
        record (Mapping[str, Any]): Record of the training; one without ``display`` says nothing.
    """
    trained = record.get("display")
    if trained and trained != describe_display():
        window, plane = trained["window"] or "that of each file", trained["slice_plane"]
        logger.warning(
            "the model was trained on DICOM and NIfTI in another window or plane (window: %s, slices: %s) than now: "
            "give the same --window and --slice_plane, or its scores mean something else",
            window,
            plane,
        )


def is_finished(trainer: Trainer, record: Mapping[str, Any]) -> bool:
    """Tell whether a training has as many epochs or steps as the trainer is to do.

    Args:
        trainer (Trainer): Trainer.
        record (Mapping[str, Any]): Record of the training, with ``epochs`` and ``steps``; it counts as finished if it
            does not say.

    Returns:
        bool: Whether nothing is left to train.
    """
    limits = {"epochs": trainer.max_epochs, "steps": trainer.max_steps}
    return any(record.get(name, limit) >= limit for name, limit in limits.items() if limit not in (None, -1))


class TestRecorder(Callback):
    """Writes the record of a training's own test beside its checkpoint."""

    __test__ = False  # no test case, whatever its name looks like to pytest

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record if it belongs to the checkpoint, and add it to the model's ``training_record``."""
        written: str = getattr(trainer.checkpoint_callback, "best_model_path", "")
        trained = trainer.global_step or trainer.current_epoch  # a control of a method trains without steps
        if not (trainer.is_global_zero and written and trained):
            return
        model: Any = pl_module
        test = _describe_test(trainer, model)
        try:
            difference = _difference(read_checkpoint(written, model.checkpoint_safe_globals()), test, trainer, model)
            if not difference:
                write_test_record(written, test)
        except (OSError, ValueError) as error:  # the metrics must still be shown
            difference = str(error)
        if difference:
            logger.info("The test is not recorded beside %s: %s.", written, difference.rstrip("."))
            return
        model.training_record = {**model.training_record, "test": test}


def _describe_test(trainer: Trainer, model: Any) -> dict[str, Any]:
    """Describe a test that has ended, in plain data."""
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("train_")}
    return {
        "weights": model.hash_learnt(),
        "thresholds": describe_thresholds(model.post_processor),
        "data": _describe_data(getattr(trainer, "datamodule", None)),
        "images": sum(len(loader.dataset) for loader in _listed(trainer.test_dataloaders)),
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
    }


def _difference(checkpoint: dict[str, Any], test: dict[str, Any], trainer: Trainer, model: Any) -> str:
    """Say why a test does not belong to a checkpoint; nothing if it does."""
    state = checkpoint["state_dict"]
    if model.hash_learnt(state) != test["weights"]:
        return "it holds other weights"
    own = {name: value.cpu() for name, value in model.state_dict().items() if name.startswith("post_processor.")}
    if not all(own[name].allclose(state[name], rtol=0, atol=0, equal_nan=True) for name in own):
        return "it holds other thresholds"
    if not test["data"] or test["data"] != checkpoint[RECORD]["data"]:
        return "it was tested on other data than those it was trained with"
    whole = [len(loader) for loader in _listed(trainer.test_dataloaders)]
    return "only a part of the test set was predicted" if list(trainer.num_test_batches) != whole else ""


def _listed(loaders: Any) -> list[Any]:
    """Return one or several loaders as a list."""
    return loaders if isinstance(loaders, list) else [loaders]


def record_file(checkpoint: Path | str) -> Path:
    """Return the file of a checkpoint's test record.

    Args:
        checkpoint (Path | str): Checkpoint.

    Returns:
        Path: ``<name>.metrics.json`` beside it.
    """
    return Path(checkpoint).with_suffix(".metrics.json")


def write_test_record(checkpoint: Path | str, test: dict[str, Any]) -> None:
    """Write a test record beside a checkpoint.

    Args:
        checkpoint (Path | str): Checkpoint.
        test (dict[str, Any]): ``weights``, ``thresholds``, ``data``, ``images`` and ``metrics``; plain data without
            NaN, which JSON does not know.
    """
    write_whole(record_file(checkpoint), json.dumps(test, indent=2, allow_nan=False) + "\n")


def read_test_record(checkpoint: Path | str, weights: str, thresholds: dict[str, float | None]) -> dict[str, Any]:
    """Read the test record that lies beside a checkpoint.

    Args:
        checkpoint (Path | str): Checkpoint.
        weights (str): Hash of the weights that the record must belong to.
        thresholds (dict[str, float | None]): Thresholds that it must belong to.

    Returns:
        dict[str, Any]: Record; empty when there is none, or that of other weights or thresholds.
    """
    file = record_file(checkpoint)
    if not file.is_file():
        return {}
    try:
        test: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        logger.warning("%s cannot be read (%s). The metrics of the test are left out; test again.", file, error)
        return {}
    belongs = test.get("weights") == weights and test.get("thresholds") == thresholds
    return test if belongs else {}


def _describe_data(datamodule: Any) -> dict[str, Any]:
    """Describe the data of a training or a test, in plain data."""
    if datamodule is None:
        return {}
    return datamodule.describe() if hasattr(datamodule, "describe") else {"data_set": datamodule.name}
