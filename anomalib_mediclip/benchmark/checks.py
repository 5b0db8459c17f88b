# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Checks before the first job: what would fail after hours is found in seconds."""

from collections.abc import Callable, Collection
from difflib import get_close_matches
from inspect import signature
from typing import Any

from jsonargparse import ArgumentParser
from lightning import Trainer

from anomalib_mediclip.benchmark.configuration import BenchmarkConfiguration
from anomalib_mediclip.benchmark.factory import BARE, find_model_class, make_datamodule, parse_init_args

SET_BY_BENCHMARK = {
    "models": {*BARE, "seed"},
    "data": {"k_shot", "seed"},
    "trainer": {"accelerator", "callbacks", "default_root_dir", "devices"},
}


def find_problems(configuration: BenchmarkConfiguration) -> list[str]:
    """Look for everything that would make a job fail, without building a model.

    Args:
        configuration (BenchmarkConfiguration): Configuration of the benchmark.

    Returns:
        list[str]: A sentence for every problem, which says where it is; empty if there is none.
    """
    problems: list[str] = []
    for name, model in configuration.models.items():
        problems += _problem_of(f"models.{name}", _check_model, model)
        problems += _problem_of(f"models.{name}.trainer", _check_trainer, model.get("trainer", {}))
    for name, data in configuration.data.items():
        problems += _problem_of(
            f"data.{name}", _check_data, data, configuration.k_shot, name in configuration.trained_on
        )
    return problems


def _problem_of(where: str, check: Callable[..., None], *arguments: Any) -> list[str]:
    """Return what is wrong in one place in one line, or nothing."""
    try:
        check(*arguments)
    except Exception as error:  # constructors and parsers raise all kinds
        return [f"{where}: {' '.join(str(error).split())}"]
    return []


def _check_model(model: dict[str, Any]) -> None:
    """Refuse a model whose class or arguments do not exist."""
    _refuse(model.get("init_args", {}), SET_BY_BENCHMARK["models"], "init_args")
    parse_init_args(find_model_class(model["class_path"]), model, {})


def _check_data(data: dict[str, Any], k_shot: Collection[int | str], is_trained_on: bool) -> None:
    """Refuse a data set that does not exist, or has too few images to train on."""
    _refuse(data.get("init_args", {}), SET_BY_BENCHMARK["data"], "init_args")
    datamodule = make_datamodule(data, {})
    largest = max((size for size in k_shot if isinstance(size, int)), default=0) if is_trained_on else 0
    for part in getattr(datamodule, "parts", {"": datamodule}).values():
        pool, _ = part.read_samples()
        if largest > len(pool):
            msg = f"k_shot {largest} is more than the {len(pool)} normal images of {part.root} to draw from"
            raise ValueError(msg)


def _check_trainer(trainer: dict[str, Any]) -> None:
    """Refuse arguments that Lightning's trainer does not have, or values of another kind."""
    _refuse(trainer, SET_BY_BENCHMARK["trainer"], "trainer")
    for name in trainer:
        known = signature(Trainer).parameters
        if name not in known:
            similar = get_close_matches(name, known, n=1)
            msg = f"{name} is no argument of the trainer" + (f"; did you mean {similar[0]}?" if similar else "")
            raise ValueError(msg)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True)
    parser.parse_object({"trainer": trainer})


def _refuse(given: dict[str, Any], reserved: Collection[str], where: str) -> None:
    """Refuse arguments that the benchmark sets itself."""
    both = sorted(reserved & given.keys())
    if both:
        msg = f"{where} has {', '.join(both)}, which the benchmark sets itself (k_shot and seeds stand in its file)"
        raise ValueError(msg)
