# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``Engine`` for models of the plugin; other models are not touched.

* A model may have default trainer arguments, which hold unless the user gives others. anomalib knows only
  ``trainer_arguments``, which override the user. Without defaults, a run that names no number of epochs would train for
  Lightning's 1000.
* Every prediction and every test has a folder of its own; anomalib's overwrite each other. The test of a training is
  in the folder of the training.
* ``predict`` reads the images of a ``data_path`` as the command does. anomalib ends at the first damaged file.
* ``train`` tests the weights that it has trained; anomalib tests the checkpoint that it resumed from.
* ``export`` exports the model it is given, with the weights of the checkpoint; anomalib makes another model, without
  the options of the user. An argument that a format does not know is refused.
"""

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

from anomalib_mediclip.host.wrapping import wrap

LIMITS = ("max_epochs", "max_steps", "max_time")
NO_LIMIT = ("max_steps", -1)  # Lightning's default


def install() -> None:
    """Wrap the methods of ``Engine``, once."""
    engine_class = getattr(import_module("anomalib.engine"), "Engine", None)  # None while anomalib imports itself
    if engine_class is not None:
        wrap(engine_class, "_setup_workspace", setup_workspace_and_plan)
        wrap(engine_class, "_setup_trainer", setup_trainer_with_defaults)
        wrap(engine_class, "fit", fit_one_model)
        wrap(engine_class, "train", train_and_test)
        wrap(engine_class, "predict", predict_given_path)
        wrap(engine_class, "export", export_given_model)


def is_own(model: Any) -> bool:
    """Tell whether a model, or a class of models, is one of this plugin.

    Args:
        model (Any): Model or class.

    Returns:
        bool: True if it has what this package needs to know of it.
    """
    return hasattr(model, "default_trainer_arguments")


def setup_workspace_and_plan(
    setup_workspace: Callable[..., None], engine: Any, model: Any, *args: Any, **kwargs: Any
) -> None:
    """Plan the folders of predictions and tests; anomalib makes those of trainings, but one in every process."""
    from lightning.pytorch.utilities import rank_zero_only

    from anomalib_mediclip.host.results_folder import given_root, plan_folders

    given_root(engine)  # kept before anomalib replaces it
    call = signature(setup_workspace).bind(engine, model, *args, **kwargs)
    is_first = not getattr(rank_zero_only, "rank", None)
    if is_own(model) and not is_first:  # the folder is that of the first process, which tells when the run starts
        call.arguments["versioned_dir"] = False
    setup_workspace(*call.args, **call.kwargs)
    plan_folders(engine, model if is_own(model) else None, call.arguments.get("datamodule"))


def setup_trainer_with_defaults(setup_trainer: Callable[..., None], engine: Any, model: Any) -> None:
    """Add the model's default trainer arguments, and callbacks and plugins that take the place of anomalib's."""
    if is_own(model):
        arguments: dict[str, Any] = engine._cache.args
        _add_defaults(arguments, model.default_trainer_arguments)
        _write_checkpoints_periodically(arguments)
        if engine._strategy_checkpoint_io() is None:
            _write_whole_files(arguments)
    setup_trainer(engine, model)
    folder = getattr(engine, "results_folder", None)
    if folder is not None and folder not in engine.trainer.callbacks:
        engine.trainer.callbacks.insert(0, folder)  # before those that write


def fit_one_model(fit: Callable[..., None], engine: Any, model: Any, *args: Any, **kwargs: Any) -> None:
    """Refuse to fit a second model: the trainer has done its epochs with the first, and would do no more."""
    former = getattr(engine, "fitted_model", None)
    if is_own(model) and former not in (None, model) and engine.trainer.global_step:
        msg = (
            f"This Engine has trained another model ({type(former).__name__}), and would leave this one untrained. "
            "Make a new Engine for each model."
        )
        raise ValueError(msg)
    engine.fitted_model = model
    fit(engine, model, *args, **kwargs)


def train_and_test(train: Callable[..., Any], engine: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """Fit a model and test the weights that it then has."""
    if not is_own(model):
        return train(engine, model, *args, **kwargs)
    given = signature(train).bind(engine, model, *args, **kwargs).arguments
    test_dataloaders = given.pop("test_dataloaders", None)
    engine.fit(**{name: value for name, value in given.items() if name != "self"})
    datamodule = given.get("datamodule")
    if test_dataloaders is None and not getattr(datamodule, "can_test", True):
        return []  # the data module has said so
    return engine.test(model, test_dataloaders, datamodule=datamodule)


def predict_given_path(predict: Callable[..., Any], engine: Any, *args: Any, **kwargs: Any) -> Any:
    """Read the images of ``data_path`` by the model's own loader, and tell it which folder holds results."""
    from anomalib_mediclip.host.results_folder import given_root

    call = signature(predict).bind(engine, *args, **kwargs)
    model: Any = call.arguments.get("model") or (engine.model if engine._trainer else None)
    if is_own(model):
        model.results_root = given_root(engine)
        if call.arguments.get("data_path") is not None and call.arguments.get("dataloaders") is None:
            call.arguments["dataloaders"] = model.image_loader(call.arguments.pop("data_path"))
    return predict(*call.args, **call.kwargs)


def export_given_model(export: Callable[..., Any], engine: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """Load the checkpoint into the model, and refuse what the format ignores."""
    call = signature(export).bind(engine, model, *args, **kwargs)
    if is_own(model):
        _check_compression(call.arguments["export_type"], call.arguments.get("compression_type"))
        checkpoint = call.arguments.pop("ckpt_path", None)
        if checkpoint:
            model.restore(checkpoint)
    return export(*call.args, **call.kwargs)


def _check_compression(export_type: Any, compression_type: Any) -> None:
    """Refuse a compression of files that are never compressed."""
    forms = import_module("anomalib.deploy").ExportType
    if compression_type is not None and forms(export_type) != forms.OPENVINO:
        msg = (
            f"--compression_type {compression_type} has no effect on --export_type {export_type}: only OpenVINO files "
            "are compressed. Leave it out, or give --export_type openvino."
        )
        raise ValueError(msg)


def _add_defaults(arguments: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Add the defaults that the user has not decided; one limit of epochs, steps or time decides the others."""
    given = {key: value for key, value in arguments.items() if value is not None and (key, value) != NO_LIMIT}
    for key, value in defaults.items():
        decided = key in given or (key in LIMITS and not given.keys().isdisjoint(LIMITS))
        impossible = key == "log_every_n_steps" and arguments.get("barebones")
        if not decided and not impossible:
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


def _write_whole_files(arguments: dict[str, Any]) -> None:
    """Write and read checkpoints by our own plugin, where the user gives none for that."""
    from lightning.pytorch.plugins import CheckpointIO

    from anomalib_mediclip.host.checkpoint_io import WholeFileCheckpointIO

    given = arguments.get("plugins")
    plugins = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        arguments["plugins"] = [*plugins, WholeFileCheckpointIO()]
