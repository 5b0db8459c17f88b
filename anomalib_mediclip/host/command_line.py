# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib`` commands for models of the plugin; commands for other models are not touched.

* ``validate``, ``test``, ``predict`` and ``export`` take every option that is not given from the checkpoint. anomalib
  takes the defaults of the class, and would build and download another encoder than the checkpoint's.
* ``--seed_everything`` is applied. anomalib reads it, and does no more.
* ``--optimizer`` and ``--lr_scheduler`` are applied by ``fit`` and ``train``. anomalib fails at them, and ignores them.
* ``predict`` reads folders ahead and keeps no predictions in memory. anomalib collects every batch, images included,
  although nothing uses them. ``Engine.predict`` called from Python returns them.
* A mistake of the user ends with one sentence, and every line is logged once; see
  :mod:`anomalib_mediclip.host.messages`.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Any

from anomalib_mediclip.display import PLANES, PRESETS, Plane, set_slice_plane, set_window
from anomalib_mediclip.host.engine import is_own
from anomalib_mediclip.host.messages import check_predicted, construct, end_with_sentence, log_once, misplaced_option
from anomalib_mediclip.host.wrapping import wrap
from anomalib_mediclip.limits import MAX_MEGAPIXELS, set_max_megapixels

AFTER_TRAINING = ("validate", "test", "predict", "export")


def install() -> None:
    """Wrap the methods of ``AnomalibCLI``, once."""
    cli = import_module("anomalib.cli.cli")
    wrap(cli, "main", end_with_sentence)
    cli_class = cli.AnomalibCLI
    wrap(cli_class, "__init__", keep_arguments)
    wrap(cli_class, "add_arguments_to_parser", add_arguments)
    wrap(cli_class, "before_instantiate_classes", complete_configuration)
    wrap(cli_class, "instantiate_classes", instantiate_and_apply)


def keep_arguments(init: Callable[..., None], cli: Any, args: Any = None, run: bool = True) -> None:
    """Keep the arguments of the command: only they tell what was given from what is a default."""
    cli.given_arguments = sys.argv[1:] if args is None else list(args)
    message = misplaced_option(cli.given_arguments)
    if message:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    init(cli, args, run)


def add_arguments(add_arguments_to_parser: Callable[[Any], None], *args: Any) -> None:
    """Add the options for size and display of images, and have a command say what is wrong with those of a model."""
    parser = args[-1]  # the method is static, and called through the object
    add_arguments_to_parser(parser)
    parser.add_instantiator(construct, import_module("anomalib.models").AnomalibModule, subclasses=True)
    parser.add_argument(
        "--max_megapixels",
        type=float | None,
        default=None,
        help="Size above which the plugin refuses an image, in megapixels; a larger one needs more memory "
        f"(default: {MAX_MEGAPIXELS:g}).",
    )
    parser.add_argument(
        "--window",
        type=str | None,
        default=None,
        help=f"How grey DICOM and NIfTI are shown: {', '.join(PRESETS)} (CT), or CENTRE,WIDTH in the unit of the file "
        "(default: the window of each file, or its range).",
    )
    parser.add_argument(
        "--slice_plane",
        type=Plane | None,
        default=None,
        help=f"Plane of the slices of NIfTI volumes (default: {PLANES[0]}).",
    )


def complete_configuration(before_instantiate_classes: Callable[[Any], None], cli: Any) -> None:
    """Apply the global seed, and take the options of the model from the checkpoint."""
    before_instantiate_classes(cli)
    config = cli.config[cli.subcommand]
    model_class = _model_class(config)
    if not is_own(model_class):
        return
    log_once()
    _apply_limits_and_display(cli, config)
    message = check_predicted(config.get("data")) if cli.subcommand == "predict" else ""
    if message:
        cli.subcommand_parsers[cli.subcommand].error(message)
    if type(config.get("seed_everything")) is int:  # True is the default
        from lightning import seed_everything

        seed_everything(config.seed_everything, workers=True, verbose=False)
    if cli.subcommand in AFTER_TRAINING and config.get("ckpt_path"):
        given = _given_options(cli)
        try:
            options = model_class.options_of_checkpoint(config.ckpt_path, given)
        except (OSError, ValueError) as error:
            cli.subcommand_parsers[cli.subcommand].error(str(error))
        for name, value in options.items():
            config.model.init_args[name] = value


def _apply_limits_and_display(cli: Any, config: Any) -> None:
    """Set the size of images, the window and the plane of slices for all processes of this run."""
    if config.get("max_megapixels") is not None:
        set_max_megapixels(config.max_megapixels)
    if config.get("slice_plane") is not None:
        set_slice_plane(config.slice_plane)
    if config.get("window") is not None:
        try:
            set_window(config.window)
        except ValueError as error:
            cli.subcommand_parsers[cli.subcommand].error(str(error))


def _model_class(config: Any) -> Any:
    """Return the class of the model that a command names, None if it names none."""
    class_path = config.get("model.class_path")
    if class_path is None:
        return None
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def _given_options(cli: Any) -> dict[str, Any]:
    """Return the options of the model that stand in the command or in its files, without defaults."""
    # a link from this argument to another one of the parser fails where it has no value
    needed = ["--default_root_dir", str(cli.config[cli.subcommand].default_root_dir)]
    given = cli.parser.parse_args([*cli.given_arguments, *needed], defaults=False)
    options = given[cli.subcommand].get("model.init_args")
    components = ("pre_processor", "post_processor", "evaluator", "visualizer")  # no options of a checkpoint
    return {name: value for name, value in (options or {}).items() if name not in components}


def instantiate_and_apply(instantiate_classes: Callable[[Any], None], cli: Any) -> None:
    """Make model, data and engine, and apply what anomalib ignores."""
    instantiate_classes(cli)
    model: Any = getattr(cli, "model", None)
    if not is_own(model):
        return
    if cli.subcommand in ("fit", "train"):
        _apply_optimizer(cli)
    if cli.subcommand == "predict":
        arguments = cli.config_init["predict"]
        arguments.return_predictions = bool(arguments.return_predictions)
        if isinstance(cli.datamodule, str | Path):
            model.prediction_path, cli.datamodule = Path(cli.datamodule), None


def _apply_optimizer(cli: Any) -> None:
    """Have ``--optimizer`` and ``--lr_scheduler`` take the place of the model's own optimiser."""
    config = cli.config_init[cli.subcommand]
    optimizer, scheduler = config.get("optimizer"), config.get("lr_scheduler")
    message = ""
    if scheduler is not None and optimizer is None:
        message = "--lr_scheduler needs --optimizer: the model's own optimiser has no schedule."
    elif optimizer is not None and not cli.model.automatic_optimization:
        message = f"--optimizer cannot replace the several optimisers of {cli.model.name}. Leave it out."
    if message:
        cli.subcommand_parsers[cli.subcommand].error(message)
    if optimizer is not None:
        cli.model.configure_optimizers = MethodType(_configured(optimizer, scheduler), cli.model)


def _configured(optimizer: Any, scheduler: Any) -> Callable[[Any], Any]:
    """Return a method ``configure_optimizers`` for the weights that are learnt."""
    from lightning.pytorch.cli import LightningCLI, instantiate_class

    def configure_optimizers(model: Any) -> Any:
        learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        made = instantiate_class(learnt, optimizer)
        schedule = instantiate_class(made, scheduler) if scheduler is not None else None
        return LightningCLI.configure_optimizers(model, made, schedule)

    return configure_optimizers
