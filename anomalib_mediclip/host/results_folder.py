# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A folder of its own for every prediction and test, as anomalib gives one to every training.

anomalib writes all predictions, and all tests, into the folder ``latest``: each overwrites the one before.
"""

from pathlib import Path
from typing import Any

from anomalib.utils.path import _highest_version_dir, create_versioned_dir
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class ResultsFolder(Callback):
    """Gives a trainer the folder of the run that starts, the same one in all processes.

    The first test after a training belongs to it, and goes to its folder.

    Attributes:
        parents (dict[str, Path]): Where the next run makes its folder, by stage: ``predict`` and ``test``.
    """

    def __init__(self) -> None:
        self.parents: dict[str, Path] = {}
        self._training: str | None = None
        self._is_tested = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder; the first process decides, because it may have started the others."""
        del pl_module
        if stage == TrainerFn.FITTING:
            folder = self._training = self._training or trainer.default_root_dir
            self._is_tested = False
        elif stage == TrainerFn.TESTING and self._training and not self._is_tested:
            folder, self._is_tested = self._training, True
        elif stage in self.parents:
            folder = str(new_version(self.parents[stage])) if trainer.is_global_zero else ""
        else:
            return
        untyped: Any = trainer  # its folder is declared to be read only
        untyped._default_root_dir = trainer.strategy.broadcast(folder)


def plan_folders(engine: Any, model: Any, datamodule: Any) -> None:
    """Say where the next prediction or test of an engine makes its folder.

    In the folder of a data set, ``latest`` leads to the last training, where its checkpoint is looked for. Predictions
    and tests of a data set are therefore in folders below.

    Args:
        engine (Any): Engine.
        model (Any): Model of this plugin; None for another, whose results go where anomalib writes them.
        datamodule (Any): Data module, or None.
    """
    callback: ResultsFolder = engine.__dict__.setdefault("results_folder", ResultsFolder())
    callback.parents.clear()
    if model is None:
        return
    folder = given_root(engine) / model.name
    if datamodule is not None:
        folder = folder / datamodule.name / (datamodule.category or "")
    for stage in (TrainerFn.PREDICTING.value, TrainerFn.TESTING.value):
        callback.parents[stage] = folder if datamodule is None else folder / stage


def new_version(parent: Path) -> Path:
    """Make the next folder ``v0``, ``v1``, ..., to which the link ``latest`` then leads.

    A folder ``latest`` that is no link holds the results of a version of this package that made no others. It becomes
    the version before.

    Args:
        parent (Path): Folder of the versions; it is made if there is none.

    Returns:
        Path: New folder.
    """
    latest = parent / "latest"
    if latest.is_dir() and latest.resolve().name == "latest":
        highest = _highest_version_dir(parent)
        latest.rename(parent / f"v{int(highest[1:]) + 1 if highest else 0}")
    return create_versioned_dir(parent)


def given_root(engine: Any) -> Path:
    """Return the folder below which an engine writes, as the user gave it: anomalib replaces it by that of each run.

    Args:
        engine (Any): Engine.

    Returns:
        Path: Argument ``default_root_dir``.
    """
    given: Path = engine.__dict__.setdefault("given_root_dir", engine._cache.args["default_root_dir"])
    return given
