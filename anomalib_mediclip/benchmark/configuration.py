# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Configuration of a benchmark, read from YAML and checked before anything runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from anomalib_mediclip.benchmark.results import TRIVIAL

DEVICES = ("auto", "cpu", "cuda")
SECTION = "few_shot_benchmark"
OPTIONAL = ("output", "published", "note")


@dataclass(frozen=True)
class BenchmarkConfiguration:
    """Models x data sets x sizes of the support set x seeds.

    Args:
        models (dict[str, dict[str, Any]]): For every name ``class_path``, ``init_args`` and ``trainer``.
        data (dict[str, dict[str, Any]]): For every name ``class_path`` and ``init_args``.
        k_shot (list[int]): Sizes of the support set.
        seeds (list[int]): Seeds of support set and model.
        output (Path): Folder of the results.
        device (str): ``cpu`` or ``cuda``.
        published (list[Path]): Tables of published figures for the report.
        note (str): Remark for readers of the report, such as on which images settings were chosen.
    """

    models: dict[str, dict[str, Any]]
    data: dict[str, dict[str, Any]]
    k_shot: list[int]
    seeds: list[int]
    output: Path
    device: str
    published: list[Path] = field(default_factory=list)
    note: str = ""


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
    content = _read_yaml(path)
    section: Any = content.get(SECTION) if isinstance(content, dict) else None
    _check(section, path)
    return BenchmarkConfiguration(
        models={name: _read_model(name, model, path) for name, model in section["models"].items()},
        data={
            name: _read_data(name, data, path, data_root or Path("datasets")) for name, data in section["data"].items()
        },
        k_shot=section["k_shot"],
        seeds=section["seeds"],
        output=output or Path(section.get("output", f"results/{SECTION}/{path.stem}")),
        device=_device(content.get("accelerator", "auto"), path),
        published=[_existing(path.parent / name, path) for name in section.get("published", [])],
        note=" ".join(str(section.get("note", "")).split()),
    )


def _read_yaml(path: Path) -> Any:
    """Read a file, and say in which line it is no YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        msg = f"{path}{line}: this is no YAML ({error.problem})"
        raise ValueError(msg) from error


def _check(section: Any, path: Path) -> None:
    """Refuse a section in which something is missing, unknown or of the wrong kind."""
    required = {"models": dict, "data": dict, "k_shot": list, "seeds": list}
    if not isinstance(section, dict) or not set(required) <= set(section) <= {*required, *OPTIONAL}:
        msg = (
            f"{path}: needs a section {SECTION} with models, data, k_shot and seeds, and may have {', '.join(OPTIONAL)}"
        )
        raise ValueError(msg)
    for key, kind in required.items():
        if not isinstance(section[key], kind) or not section[key]:
            msg = f"{path}: {SECTION}.{key} must be a {'mapping by name' if kind is dict else 'list'} that is not empty"
            raise ValueError(msg)
    for key in ("k_shot", "seeds"):
        if not all(type(number) is int for number in section[key]) or len(set(section[key])) < len(section[key]):
            msg = f"{path}: {SECTION}.{key} {section[key]} must be whole numbers, none of them twice"
            raise ValueError(msg)
    if TRIVIAL in section["models"]:
        msg = f"{path}: give the model {TRIVIAL!r} another name; the trivial baseline has this one"
        raise ValueError(msg)


def _read_model(name: str, model: Any, path: Path) -> dict[str, Any]:
    """Return a model's specification; a string is the file of one, as for ``anomalib train --config``."""
    if isinstance(model, str):
        content = _read_yaml(_existing(path.parent / model, path))
        if not isinstance(content, dict) or "model" not in content:
            msg = f"{path}: model {name!r} names {model}, which has no section model"
            raise ValueError(msg)
        model = {**content["model"], "trainer": content.get("trainer", {})}
    if not isinstance(model, dict) or "class_path" not in model or set(model) - {"class_path", "init_args", "trainer"}:
        msg = f"{path}: model {name!r} must be a file, or have class_path and perhaps init_args and trainer"
        raise ValueError(msg)
    return model


def _read_data(name: str, data: Any, path: Path, data_root: Path) -> dict[str, Any]:
    """Return the specification of a data set, a relative root put below the folder of data sets."""
    if not isinstance(data, dict) or "class_path" not in data or set(data) - {"class_path", "init_args"}:
        msg = f"{path}: data set {name!r} must have class_path and perhaps init_args"
        raise ValueError(msg)
    init_args = dict(data.get("init_args", {}))
    if "root" in init_args:
        init_args["root"] = str(data_root / init_args["root"])
    return {**data, "init_args": init_args}


def _existing(named: Path, path: Path) -> Path:
    """Return a file named by the configuration, relative to it."""
    if not named.is_file():
        msg = f"{path} names {named}, which does not exist; names are relative to the folder of {path.name}"
        raise FileNotFoundError(msg)
    return named


def _device(accelerator: Any, path: Path) -> str:
    """Return the device to run on."""
    if accelerator not in DEVICES:
        msg = f"{path}: accelerator {accelerator!r} must be one of {', '.join(DEVICES)}"
        raise ValueError(msg)
    has_gpu = torch.cuda.is_available()
    if accelerator == "cuda" and not has_gpu:
        msg = f"{path}: accelerator cuda, but torch finds no GPU; use auto or cpu"
        raise ValueError(msg)
    return "cuda" if has_gpu and accelerator != "cpu" else "cpu"
