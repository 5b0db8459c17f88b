# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib predict`` for models of the plugin: it reads folders ahead and keeps no predictions in memory.

The stock command collects every batch, images included, although nothing uses them. ``Engine.predict`` called from
Python is not changed.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any


def install() -> None:
    """Wrap ``AnomalibCLI.instantiate_classes``, once."""
    cli_class = import_module("anomalib.cli").AnomalibCLI
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
