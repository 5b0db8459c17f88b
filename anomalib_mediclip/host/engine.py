# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Default trainer arguments of a model: they hold unless the user gives others.

anomalib knows only ``trainer_arguments``, which override the user. Without defaults, a run that names no number of
epochs would train for Lightning's 1000.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any


def install() -> None:
    """Wrap ``Engine._setup_trainer``, once."""
    engine_class = getattr(import_module("anomalib.engine"), "Engine", None)  # None while anomalib imports itself
    if engine_class is None or hasattr(engine_class._setup_trainer, "respects_defaults"):
        return
    setup_trainer: Callable[[Any, Any], None] = engine_class._setup_trainer

    @wraps(setup_trainer)
    def setup_trainer_with_defaults(engine: Any, model: Any) -> None:
        defaults: dict[str, Any] | None = getattr(model, "default_trainer_arguments", None)
        if defaults is not None:
            _add_defaults(engine._cache.args, defaults)
            _write_checkpoints_periodically(engine._cache.args)
        setup_trainer(engine, model)

    setup_trainer_with_defaults.respects_defaults = True  # type: ignore[attr-defined]
    engine_class._setup_trainer = setup_trainer_with_defaults


def _add_defaults(arguments: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Add the defaults that the user has not decided; a limit of steps or of time decides the number of epochs."""
    is_limited = arguments.get("max_steps") not in (None, -1) or arguments.get("max_time") is not None
    for key, value in defaults.items():
        if arguments.get(key) is None and not (key == "max_epochs" and is_limited):
            arguments[key] = value


def _write_checkpoints_periodically(arguments: dict[str, Any]) -> None:
    """Replace the checkpoint callback that anomalib adds where the user gives none, and which writes every epoch."""
    from anomalib.callbacks import ModelCheckpoint

    from anomalib_mediclip.host.periodic_checkpoint import PeriodicCheckpoint

    callbacks = arguments["callbacks"] or []
    if arguments.get("barebones") or any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        return
    folder = arguments["default_root_dir"] / "weights" / "lightning"
    arguments["callbacks"] = [
        PeriodicCheckpoint(dirpath=folder, filename="model", auto_insert_metric_name=False),
        *callbacks,
    ]
