# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Configuration of a benchmark: what its file may say, read by jsonargparse, and checked before anything runs."""

from collections import UserDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from jsonargparse.typing import register_type

from anomalib_mediclip.benchmark.results import TRIVIAL
from anomalib_mediclip.cluster.options import ClusterOptions, Launcher

Accelerator = Literal["auto", "cpu", "cuda"]
SECTION = "few_shot_benchmark"
MODEL_KEYS = {"class_path", "file", "init_args", "trainer"}


class ByName(UserDict[str, Any]):
    """Specifications by name, as they stand in the file: jsonargparse would fill in the defaults of every class."""


def _as_mapping(given: Any) -> ByName:
    """Return a mapping of a file, or of an option of the command."""
    content = yaml.safe_load(given) if isinstance(given, str) else given
    if not isinstance(content, dict | ByName) or not content:
        msg = "it must be a mapping by name that is not empty"
        raise ValueError(msg)
    return ByName(content)


register_type(ByName, serializer=dict, deserializer=_as_mapping, fail_already_registered=False)


@dataclass(frozen=True)
class BenchmarkConfiguration:
    """What a benchmark runs: models x data sets x sizes of the support set x seeds.

    Args:
        models (ByName): For every name the file of a model, relative to that of the benchmark; or ``class_path``,
            ``init_args`` and ``trainer``; or ``file``, and the ``init_args`` and ``trainer`` arguments in which it
            differs.
        data (ByName): For every name ``class_path`` and ``init_args`` of a data module. A relative ``root`` is one
            below ``--data_root``.
        k_shot (list[int | Literal["all"]]): Numbers of normal images in the support set; ``all`` takes every normal
            training image.
        seeds (list[int]): Seeds of support set and model.
        train_on (list[str], optional): Names of the data sets that models are trained on. Defaults to all.
        test_on (list[str], optional): Names of the data sets that every trained model is tested on, whatever it was
            trained on. Defaults to none: every model is tested on the data set that it was trained on.
        output (Path | None, optional): Folder of the results. Defaults to
            ``results/few_shot_benchmark/<name of the file>``.
        published (list[Path], optional): CSV files of published figures that the report prints beside ours, relative to
            the file of the benchmark. Defaults to none.
        note (str, optional): Remark for readers of the report, such as on which images settings were chosen.
        device (str, optional): ``cpu`` or ``cuda``; it follows from ``--accelerator``, or from what a job of a cluster
            gets.
        launcher (Launcher, optional): Where jobs run; it is that of ``--launcher``.
        cluster (ClusterOptions, optional): What a job gets there; it is that of ``--cluster``.
    """

    models: ByName
    data: ByName
    k_shot: list[int | Literal["all"]]
    seeds: list[int]
    train_on: list[str] = field(default_factory=list)
    test_on: list[str] = field(default_factory=list)
    output: Path | None = None
    published: list[Path] = field(default_factory=list)
    note: str = ""
    device: str = "cpu"
    launcher: Launcher = "local"
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return self.output or Path("results") / SECTION

    @property
    def trained_on(self) -> list[str]:
        """Data sets that models are trained on."""
        return self.train_on or list(self.data)

    def tested_on(self, trained_on: str) -> list[str]:
        """Return the data sets that a model is tested on.

        Args:
            trained_on (str): Data set that it was trained on.

        Returns:
            list[str]: Names.
        """
        return self.test_on or [trained_on]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of a benchmark to a parser.

    Args:
        parser (ArgumentParser): Parser of the command.
    """
    parser.add_argument("--config", action="config", help="YAML file of the benchmark, see configs/benchmark.")
    parser.add_argument(
        "--data_root", type=Path, default=Path("datasets"), help="Folder that holds the data sets of the file."
    )
    parser.add_argument(
        "--output", type=Path | None, default=None, help="Folder of the results, in place of the file's own."
    )
    parser.add_argument(
        "--accelerator", type=Accelerator, default="auto", help="Device; auto takes a GPU if there is one."
    )
    parser.add_argument(
        "--launcher", type=Launcher, default="local", help="Where jobs run: local, ray or slurm; see docs/cluster.md."
    )
    parser.add_class_arguments(ClusterOptions, "cluster")
    parser.add_class_arguments(BenchmarkConfiguration, SECTION, skip={"device", "launcher", "cluster"})


def read_configuration(path: Path, data_root: Path | None = None, output: Path | None = None) -> BenchmarkConfiguration:
    """Read the configuration of a benchmark.

    Args:
        path (Path): YAML file, see ``configs/benchmark``.
        data_root (Path | None, optional): Folder that holds the data sets whose ``root`` is relative. Defaults to
            ``None``: ``datasets``.
        output (Path | None, optional): Folder of the results. Defaults to ``None``: the file's own.

    Returns:
        BenchmarkConfiguration: Configuration.

    Raises:
        FileNotFoundError: If the file, or one that it names, does not exist.
        ValueError: If a key is missing, unknown or of the wrong kind.
    """
    if not path.is_file():
        msg = f"there is no file {path}"
        raise FileNotFoundError(msg)
    parser = ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    given = {"--data_root": data_root, "--output": output}
    options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    try:
        arguments = parser.parse_args(["--config", str(path), *options])
    except ArgumentError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    return make_configuration(arguments)


def make_configuration(arguments: Namespace) -> BenchmarkConfiguration:
    """Make the configuration that was asked for: files that it names are read, and names are checked.

    Args:
        arguments (Namespace): From a parser with the arguments of :func:`add_arguments`.

    Returns:
        BenchmarkConfiguration: Configuration whose models and data sets are specifications.

    Raises:
        FileNotFoundError: If a file that it names does not exist.
        ValueError: If a value is wrong.
    """
    path = Path(str(arguments.config[0])) if arguments.config else Path("benchmark.yaml")
    given = BenchmarkConfiguration(**dict(arguments[SECTION].items()))
    _check(given, path)
    return replace(
        given,
        models=ByName({name: _read_model(name, model, path) for name, model in given.models.items()}),
        data=ByName({name: _read_data(name, data, path, arguments.data_root) for name, data in given.data.items()}),
        output=arguments.output or given.output or Path("results") / SECTION / path.stem,
        published=[_existing(path.parent / name, path) for name in given.published],
        note=" ".join(given.note.split()),
        device=_device(arguments, path) if arguments.launcher == "local" else _device_there(arguments, path),
        launcher=arguments.launcher,
        cluster=ClusterOptions(**arguments.cluster.as_dict()),
    )


def _read_yaml(path: Path) -> Any:
    """Read a file, and say in which line it is no YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        msg = f"{path}{line}: this is no YAML ({error.problem})"
        raise ValueError(msg) from error


def _check(given: BenchmarkConfiguration, path: Path) -> None:
    """Refuse values of the right kind that make no sense."""
    lists: dict[str, Sequence[Any]] = {"k_shot": given.k_shot, "seeds": given.seeds}
    for key, values in lists.items():
        if not values or len(set(values)) < len(values) or any(value is True or value is False for value in values):
            msg = f"{path}: {SECTION}.{key} {values} must be a list of numbers that is not empty, none of them twice"
            raise ValueError(msg)
    _check_names(given, path)
    if TRIVIAL in given.models:
        msg = f"{path}: give the model {TRIVIAL!r} another name; the trivial baseline has this one"
        raise ValueError(msg)


def _check_names(given: BenchmarkConfiguration, path: Path) -> None:
    """Refuse data sets to train on, or to test on, that are not among the data sets."""
    for key, names in {"train_on": given.train_on, "test_on": given.test_on}.items():
        unknown = [name for name in names if name not in given.data]
        if unknown or len(set(names)) < len(names):
            wrong = f"names {', '.join(unknown)}" if unknown else "names a data set twice"
            msg = f"{path}: {SECTION}.{key} {wrong}; choose from {SECTION}.data: {', '.join(given.data)}"
            raise ValueError(msg)


def _read_model(name: str, model: Any, path: Path) -> dict[str, Any]:
    """Return a model's specification; a string is the file of one, as for ``anomalib train --config``."""
    if isinstance(model, str):
        return _read_model_file(name, model, path)
    if not isinstance(model, dict) or len({"class_path", "file"} & set(model)) != 1 or set(model) - MODEL_KEYS:
        msg = f"{path}: model {name!r} must be a file, or have class_path or file, and perhaps init_args and trainer"
        raise ValueError(msg)
    if "class_path" in model:
        return model
    base = _read_model_file(name, model["file"], path)
    return {**base, **{key: {**base.get(key, {}), **model.get(key, {})} for key in ("init_args", "trainer")}}


def _read_model_file(name: str, file: str, path: Path) -> dict[str, Any]:
    """Return the specification that a file of a model holds."""
    content = _read_yaml(_existing(path.parent / file, path))
    if not isinstance(content, dict) or "model" not in content:
        msg = f"{path}: model {name!r} names {file}, which has no section model"
        raise ValueError(msg)
    return {**content["model"], "trainer": content.get("trainer", {})}


def _read_data(name: str, data: Any, path: Path, data_root: Path) -> dict[str, Any]:
    """Return the specification of a data set, a relative root put below the folder of data sets."""
    if not isinstance(data, dict) or "class_path" not in data or set(data) - {"class_path", "init_args"}:
        msg = f"{path}: data set {name!r} must have class_path and perhaps init_args"
        raise ValueError(msg)
    return {**data, "init_args": _placed(data.get("init_args", {}), data_root)}


def _placed(options: dict[str, Any], data_root: Path) -> dict[str, Any]:
    """Put relative roots below the folder of data sets, those of data sets within a data set included."""
    placed = {name: _placed(value, data_root) if isinstance(value, dict) else value for name, value in options.items()}
    return {**placed, "root": str(data_root / options["root"])} if isinstance(options.get("root"), str) else placed


def _existing(named: Path, path: Path) -> Path:
    """Return a file named by the configuration, relative to it."""
    if not named.is_file():
        msg = f"{path} names {named}, which does not exist; names are relative to the folder of {path.name}"
        raise FileNotFoundError(msg)
    return named


def _device(arguments: Namespace, path: Path) -> str:
    """Return the device to run on."""
    has_gpu = torch.cuda.is_available()
    if arguments.accelerator == "cuda" and not has_gpu:
        msg = f"{path}: accelerator cuda, but torch finds no GPU; use auto or cpu"
        raise ValueError(msg)
    return "cuda" if has_gpu and arguments.accelerator != "cpu" else "cpu"


def _device_there(arguments: Namespace, path: Path) -> str:
    """Return the device of jobs on a cluster, whose machines may have GPUs where this one has none."""
    if arguments.accelerator == "cuda" and not arguments.cluster.gpus:
        msg = f"{path}: accelerator cuda needs --cluster.gpus, the GPUs that a job gets of the cluster, such as 1"
        raise ValueError(msg)
    return "cuda" if arguments.cluster.gpus and arguments.accelerator != "cpu" else "cpu"
