# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Commands of the plugin as subcommands of ``anomalib``: pipelines, and functions in a group."""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

from anomalib.pipelines.components.base import Pipeline, Runner
from jsonargparse import ArgumentParser, Namespace

from anomalib_mediclip.host.messages import log_once


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


class CommandGroup(RunnerPipeline):
    """Functions as subcommands of a subcommand; anomalib takes the group for a pipeline.

    Attributes:
        commands (dict[str, Callable[..., None]]): Function of each subcommand. Its arguments without a default are
            positional unless they are keyword-only, its docstring is the help.
    """

    commands: ClassVar[dict[str, Callable[..., None]]]

    @classmethod
    def get_parser(cls, parser: ArgumentParser | None = None) -> ArgumentParser:
        """Return the parser of the group, still without its subcommands."""
        return parser or ArgumentParser(description=cls.__doc__)

    @classmethod
    def add_commands(cls, parser: ArgumentParser) -> None:
        """Add the subcommands to the parser of the group.

        Args:
            parser (ArgumentParser): Parser, which is a subcommand by now: jsonargparse wants the upper level first.
        """
        subcommands = parser.add_subcommands()
        for name, function in cls.commands.items():
            description = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:")[0]
            command = ArgumentParser(description=description)
            command.add_function_arguments(function, as_group=False, as_positional=True)
            for action in command._actions:
                if isinstance(action.default, bool):  # `--confirm` alone is enough
                    action.nargs, action.const = "?", True
            subcommands.add_subcommand(name, command, help=description.partition("\n")[0])

    def run(self, args: Namespace | None = None) -> None:
        """Call the function of the subcommand that was given."""
        given: Any = args or self.get_parser().parse_args()
        self.commands[given.subcommand](**given[given.subcommand].as_dict())

    def make_runners(self, args: dict) -> list[Runner]:
        """Return none: a function is called."""
        del args
        return []


def add_group(name: str, summary: str, commands: Mapping[str, Callable[..., None]]) -> None:
    """Make functions subcommands of a subcommand of ``anomalib``: ``anomalib NAME FUNCTION ...``.

    Args:
        name (str): Name of the group.
        summary (str): What it is for, in a sentence.
        commands (Mapping[str, Callable[..., None]]): Function of each subcommand, see :class:`CommandGroup`.
    """
    group = type("Commands", (CommandGroup,), {"__doc__": summary, "commands": dict(commands)})
    add_pipeline(name, group)


def add_to_groups(add_subcommands: Callable[..., None], cli: Any, **kwargs: Any) -> None:
    """Add the subcommands of all groups, once anomalib has added the groups."""
    add_subcommands(cli, **kwargs)
    for name, pipeline in (import_module("anomalib.cli.pipelines").PIPELINE_REGISTRY or {}).items():
        if issubclass(pipeline, CommandGroup):
            pipeline.add_commands(cli.subcommand_parsers[name])


def run_group(run_subcommand: Callable[[Any], None], cli: Any) -> None:
    """Run a command of a group; anomalib would say of it, as of its pipelines, that it is experimental."""
    group = (import_module("anomalib.cli.pipelines").PIPELINE_REGISTRY or {}).get(cli.subcommand)
    if group is None or not issubclass(group, CommandGroup):
        run_subcommand(cli)
    else:
        log_once()
        group().run(cli.config[cli.subcommand])


def add_pipeline(name: str, pipeline: type[Pipeline]) -> None:
    """Make a pipeline a subcommand of ``anomalib``.

    Args:
        name (str): Name of the subcommand.
        pipeline (type[Pipeline]): Pipeline.
    """
    registry = import_module("anomalib.cli.pipelines").PIPELINE_REGISTRY
    if registry is not None:  # None where anomalib is installed without its pipelines
        registry[name] = pipeline
