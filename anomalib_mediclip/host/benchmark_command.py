# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Subcommands of ``anomalib`` that run a pipeline of the plugin."""

from importlib import import_module


def add_pipeline(name: str, pipeline: type) -> None:
    """Make a pipeline a subcommand of ``anomalib``.

    Args:
        name (str): Name of the subcommand.
        pipeline (type): Subclass of anomalib's ``Pipeline``.
    """
    registry = import_module("anomalib.cli.pipelines").PIPELINE_REGISTRY
    if registry is not None:  # None where anomalib is installed without its pipelines
        registry[name] = pipeline
