# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What the plugin makes visible to anomalib, and where.

Called by the import hook of :mod:`anomalib_mediclip.autoload` once a host module has been imported, and by the
plugin's own packages when they are imported first; registering twice is harmless.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

# host module of anomalib -> (package of the plugin, the names that appear in the host)
VISIBLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "anomalib.data": ("anomalib_mediclip.data", ("BUSI", "BrainMRI", "CheXpert", "MedicalFolder")),
    "anomalib.models": ("anomalib_mediclip.models", ("MediCLIP", "SimpleNet")),
}


def register(host: str) -> None:
    """Make the plugin's classes visible in one module of anomalib.

    Args:
        host (str): One of ``anomalib_mediclip.autoload.HOSTS``.
    """
    host_module = import_module(host)
    if host == "anomalib.cli.pipelines":
        _add_pipeline(host_module)
        return
    if host == "anomalib.cli":
        _stream_predictions(host_module)
        return
    if host == "anomalib.engine":
        _respect_default_trainer_arguments(host_module)
        return
    package, names = VISIBLE[host]
    plugin = import_module(package)
    if not all(hasattr(plugin, name) for name in names):
        return  # the package is being imported at this moment, and registers itself when it is complete
    for name in names:
        setattr(host_module, name, getattr(plugin, name))
    if host == "anomalib.models":
        # `anomalib benchmark` imports model classes from these modules only
        host_module.ALLOWED_MODULES.update({"anomalib_mediclip", package})


def _add_pipeline(pipelines_module: ModuleType) -> None:
    """Make the benchmark a subcommand of ``anomalib``."""
    from anomalib_mediclip.benchmark import FewShotBenchmark

    if pipelines_module.PIPELINE_REGISTRY is not None:  # None where anomalib is installed without its pipelines
        pipelines_module.PIPELINE_REGISTRY["few_shot_benchmark"] = FewShotBenchmark


def _respect_default_trainer_arguments(engine_module: ModuleType) -> None:
    """Let a model state trainer arguments that hold unless the user gives others.

    anomalib knows only ``trainer_arguments``, which override the user; without this, a run that names no number of
    epochs would train for Lightning's 1000.
    """
    engine_class = getattr(engine_module, "Engine", None)
    if engine_class is None or hasattr(engine_class._setup_trainer, "respects_defaults"):
        return
    setup_trainer: Callable[[Any, Any], None] = engine_class._setup_trainer

    @wraps(setup_trainer)
    def setup_trainer_with_defaults(engine: Any, model: Any) -> None:
        arguments = engine._cache.args
        if arguments.get("max_steps") not in (None, -1) or arguments.get("max_time") is not None:
            arguments = {**arguments, "max_epochs": -1}  # the user has limited the run in another way
        defaults: dict[str, Any] = getattr(model, "default_trainer_arguments", lambda _: {})(arguments)
        for key, value in defaults.items():
            if arguments.get(key) is None:
                engine._cache.args[key] = value
        if hasattr(model, "default_trainer_arguments"):
            _write_checkpoints_periodically(engine._cache.args)
        setup_trainer(engine, model)

    setup_trainer_with_defaults.respects_defaults = True  # type: ignore[attr-defined]
    engine_class._setup_trainer = setup_trainer_with_defaults


def _write_checkpoints_periodically(arguments: dict[str, Any]) -> None:
    """Replace the checkpoint callback that anomalib adds where the user gives none, and so one an epoch."""
    from anomalib.callbacks import ModelCheckpoint

    from anomalib_mediclip.models.periodic_checkpoint import PeriodicCheckpoint

    callbacks = arguments["callbacks"] or []
    if arguments.get("barebones") or any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        return
    folder = arguments["default_root_dir"] / "weights" / "lightning"
    arguments["callbacks"] = [
        PeriodicCheckpoint(dirpath=folder, filename="model", auto_insert_metric_name=False),
        *callbacks,
    ]


def _stream_predictions(cli_module: ModuleType) -> None:
    """Let ``anomalib predict`` read folders ahead and keep no predictions in memory, for models of the plugin.

    The command would collect every batch, images included, to return them to nobody. ``Engine.predict`` called from
    Python returns what it always did.
    """
    cli_class = cli_module.AnomalibCLI
    if hasattr(cli_class.instantiate_classes, "streams_predictions"):
        return
    instantiate_classes: Callable[[Any], None] = cli_class.instantiate_classes

    @wraps(instantiate_classes)
    def instantiate_and_stream(cli: Any) -> None:
        instantiate_classes(cli)
        if cli.subcommand != "predict" or not hasattr(cli.model, "prediction_path"):
            return
        arguments = cli.config_init["predict"]
        arguments.return_predictions = bool(arguments.return_predictions)
        if isinstance(cli.datamodule, str | Path):
            cli.model.prediction_path, cli.datamodule = Path(cli.datamodule), None

    instantiate_and_stream.streams_predictions = True  # type: ignore[attr-defined]
    cli_class.instantiate_classes = instantiate_and_stream
