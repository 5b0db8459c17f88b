# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Models and data modules from ``class_path`` and ``init_args``, checked by jsonargparse as on the command line."""

from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module
from typing import Any, cast

import anomalib.data
import anomalib.models  # noqa: F401  short class names resolve among imported classes
from anomalib.models.components import AnomalibModule
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from anomalib_mediclip.data import FewShotDataModule
from anomalib_mediclip.encoders.weights import LITE_ENCODER, TIMM_PREFIX, write_lite_weights_into_hub_cache

PACKAGE = __name__.partition(".")[0]
# the benchmark takes what the model itself predicts, and writes its own results
BARE = {"post_processor": False, "evaluator": False, "visualizer": False}


def build_model(specification: dict[str, Any], seed: int) -> AnomalibModule:
    """Build a model without post-processor, evaluator and visualizer.

    Args:
        specification (dict[str, Any]): ``class_path`` and ``init_args``.
        seed (int): Seed of the run, given to models that have an argument ``seed``.

    Returns:
        AnomalibModule: Model whose predictions are raw.

    Raises:
        ValueError: If there is no such class or argument, naming both.
    """
    wanted = find_model_class(specification["class_path"])
    if _needs_hub_cache(wanted, specification.get("init_args", {})):
        write_lite_weights_into_hub_cache()
    return cast("AnomalibModule", _build(wanted, specification, {**BARE, "seed": seed}))


def _needs_hub_cache(wanted: type, init_args: dict[str, Any]) -> bool:
    """Tell whether timm will look for the lite weights in the hub's cache; this plugin's models read the package."""
    names = {value.removeprefix(TIMM_PREFIX) for value in init_args.values() if isinstance(value, str)}
    own = wanted.__module__.partition(".")[0] == PACKAGE
    return not own and not names.isdisjoint((LITE_ENCODER, LITE_ENCODER.partition(".")[0]))


def build_datamodule(specification: dict[str, Any], k_shot: int | None, seed: int) -> FewShotDataModule:
    """Build a data module.

    Args:
        specification (dict[str, Any]): ``class_path`` and ``init_args``.
        k_shot (int | None): Size of the support set; None takes the whole training pool.
        seed (int): Seed of its draw.

    Returns:
        FewShotDataModule: Data module, set up.

    Raises:
        ValueError: If there is no such class or argument, naming both.
        FileNotFoundError: If the data set is not where it should be.
    """
    datamodule = make_datamodule(specification, {"k_shot": k_shot, "seed": seed})
    datamodule.setup()
    return datamodule


def make_datamodule(specification: dict[str, Any], arguments: dict[str, Any]) -> FewShotDataModule:
    """Make a data module without reading anything.

    Args:
        specification (dict[str, Any]): ``class_path`` and ``init_args``.
        arguments (dict[str, Any]): Further arguments, if its constructor has them.

    Returns:
        FewShotDataModule: Data module.

    Raises:
        ValueError: If there is no such class or argument, naming both.
    """
    wanted = _find_class(FewShotDataModule, specification["class_path"])
    return cast("FewShotDataModule", _build(wanted, specification, arguments))


def support_sizes(specification: dict[str, Any], wanted: Sequence[int | str]) -> dict[int, bool]:
    """Turn sizes of the support set into numbers.

    Args:
        specification (dict[str, Any]): ``class_path`` and ``init_args`` of a data module.
        wanted (Sequence[int | str]): Numbers, or ``all`` for every normal training image.

    Returns:
        dict[int, bool]: For every number of images whether they are all of them.
    """
    sizes = {size: False for size in wanted if isinstance(size, int)}
    if len(sizes) < len(wanted):
        pool, _ = make_datamodule(specification, {}).read_samples()
        sizes[len(pool)] = True
    return sizes


def _build(wanted: type, specification: dict[str, Any], arguments: dict[str, Any]) -> object:
    """Build an instance of a class, with those of the arguments that its constructor has."""
    parser, parsed = parse_init_args(wanted, specification, arguments)
    return parser.instantiate_classes(parsed).it


def parse_init_args(
    wanted: type, specification: dict[str, Any], arguments: dict[str, Any]
) -> tuple[ArgumentParser, Namespace]:
    """Check the arguments of a class, without making an instance.

    Args:
        wanted (type): Class.
        specification (dict[str, Any]): ``init_args``.
        arguments (dict[str, Any]): Further arguments, if its constructor has them.

    Returns:
        tuple[ArgumentParser, Namespace]: Parser, and what it found.

    Raises:
        ArgumentError: If there is no such argument, or its value is of another kind.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(wanted, "it", fail_untyped=False)
    known = parser.get_defaults().it  # those that go through **kwargs to a base class included
    fitting = {key: value for key, value in arguments.items() if key in known}
    init_args = deepcopy(specification.get("init_args", {}))  # jsonargparse changes nested values
    return parser, parser.parse_object({"it": {**init_args, **fitting}})


def find_model_class(class_path: str) -> type:
    """Return a class of models by its name or full path.

    Args:
        class_path (str): Name or path.

    Returns:
        type: Class.

    Raises:
        ValueError: If there is no such class.
    """
    return _find_class(AnomalibModule, class_path)


def _find_class(base: type, class_path: str) -> type:
    """Return a subclass by its name or full path."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it", fail_untyped=False, required=True)
    try:
        module, _, name = parser.parse_object({"it": class_path}).it.class_path.rpartition(".")
    except ArgumentError as error:
        msg = f"there is no {base.__name__} named {class_path!r}; give a class name or its full path"
        raise ValueError(msg) from error
    return cast("type", getattr(import_module(module), name))
