# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pipelines of the plugin as subcommands of ``anomalib``."""

from abc import abstractmethod
from importlib import import_module

from anomalib.pipelines.components.base import Pipeline, Runner


class RunnerPipeline(Pipeline):
    """anomalib's pipeline; a subclass makes its runners through a public name."""

    @abstractmethod
    def make_runners(self, args: dict) -> list[Runner]:
        """Return the runners, in the order in which they run.

        Args:
            args (dict): Arguments of the pipeline.

        Returns:
            list[Runner]: Runners.
        """

    def _setup_runners(self, args: dict) -> list[Runner]:
        return self.make_runners(args)


def add_pipeline(name: str, pipeline: type[Pipeline]) -> None:
    """Make a pipeline a subcommand of ``anomalib``.

    Args:
        name (str): Name of the subcommand.
        pipeline (type[Pipeline]): Pipeline.
    """
    registry = import_module("anomalib.cli.pipelines").PIPELINE_REGISTRY
    if registry is not None:  # None where anomalib is installed without its pipelines
        registry[name] = pipeline
