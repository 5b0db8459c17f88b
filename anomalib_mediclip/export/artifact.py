# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A trained model in two files without pickle: ``model.safetensors`` and ``model.json``.

They hold what a checkpoint holds: what was learnt, the prompt features and the calibration; and, as JSON, the arguments
of the model, name and hash of the frozen encoder, versions, and the record of the training. The frozen encoder is taken
from where its weights are published, and recognised by the hash.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from anomalib.models.components import AnomalibModule
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import anomalib_mediclip
from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.versions import installed_versions

FORMAT = 1


def save_artifact(model: Any, folder: Path | str, name: str = "model") -> Path:
    """Write a model as safetensors and JSON.

    Args:
        model (Any): Model of this plugin.
        folder (Path | str): Existing folder.
        name (str, optional): Name of the files without extension. Defaults to ``"model"``.

    Returns:
        Path: The JSON file.
    """
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(checkpoint)
    content = {"format": FORMAT, "model": model.name, "versions": installed_versions(), **checkpoint}
    return write_artifact(Path(folder) / f"{name}.json", content)


def write_artifact(description: Path, content: Mapping[str, Any]) -> Path:
    """Write the two files of an artefact.

    Args:
        description (Path): The JSON file; its folder exists.
        content (Mapping[str, Any]): What :func:`read_artifact` returns.

    Returns:
        Path: The JSON file.
    """
    state: dict[str, torch.Tensor] = content["state_dict"]
    tensors = {key: value.cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    # save_file would make it readable to its owner only
    write_whole(description.with_suffix(".safetensors"), save(tensors))
    plain = {key: value for key, value in content.items() if key != "state_dict"}
    write_whole(description, json.dumps(plain, indent=2, allow_nan=False) + "\n")
    return description


def read_artifact(path: Path | str) -> dict[str, Any]:
    """Read the two files of an artefact.

    Args:
        path (Path | str): The JSON file, or its folder where the file is called ``model.json``.

    Returns:
        dict[str, Any]: What is in the JSON file, and the tensors as ``state_dict``: a checkpoint.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the files are not such an export, or of another version.
    """
    description = Path(path) / "model.json" if Path(path).is_dir() else Path(path)
    return {**_read_description(description), "state_dict": _read_tensors(description.with_suffix(".safetensors"))}


def load_artifact(path: Path | str, **arguments: Any) -> Any:
    """Load a model that was exported with ``--export_type torch``, without pickle.

    Args:
        path (Path | str): The JSON file, or its folder where the file is called ``model.json``.
        **arguments (Any): Arguments of the model that differ here, such as ``weights``, the path of the encoder's file.

    Returns:
        Any: Model in evaluation mode; called with RGB images ``(B, 3, H, W)`` in [0, 1] it returns anomaly map, score,
        mask and label.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the files are not such an export, of another version, or belong to another encoder.

    Example:
        >>> model = load_artifact("results/weights/torch")  # doctest: +SKIP
        >>> model(images).pred_score  # doctest: +SKIP
    """
    checkpoint = read_artifact(path)
    model: Any = model_class(checkpoint["model"], Path(path))(**{**checkpoint["hyper_parameters"], **arguments})
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    return model.eval().requires_grad_(False)


def _read_description(file: Path) -> dict[str, Any]:
    """Read and check the JSON file."""
    if not file.is_file():
        msg = f"{file} does not exist. Give the folder that `anomalib export --export_type torch` wrote to."
        raise FileNotFoundError(msg)
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        form = content["format"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{file} is not the description of an exported model ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    if form != FORMAT:
        written_by = content.get("versions", {}).get("anomalib-mediclip", "unknown")
        msg = (
            f"{file} has format {form}, this version of anomalib-mediclip reads format {FORMAT}. It was written by "
            f"anomalib-mediclip {written_by}: install that version, or export again with this one."
        )
        raise ValueError(msg)
    return content


def _read_tensors(file: Path) -> dict[str, Any]:
    """Read the safetensors file."""
    if not file.is_file():
        msg = f"{file} does not exist. It belongs beside the JSON file; copy both."
        raise FileNotFoundError(msg)
    try:
        return load_file(file)
    except SafetensorError as error:
        msg = f"{file} cannot be read as safetensors ({error}). Copy or export it again."
        raise ValueError(msg) from error


def model_class(name: str, file: Path) -> type[AnomalibModule]:
    """Return the class of a model by its name.

    Args:
        name (str): Name of the class: one of this plugin's, or of any other subclass that has been imported.
        file (Path): File that names it, for the message.

    Returns:
        type[AnomalibModule]: Class.

    Raises:
        ValueError: If there is no such class.
    """
    imported = {model.__name__: model for model in _subclasses(AnomalibModule)}
    if name in imported:
        return imported[name]
    if name not in anomalib_mediclip.__all__:
        msg = f"{file} describes a {name!r}; anomalib-mediclip {anomalib_mediclip.__version__} has no such model."
        raise ValueError(msg)
    return getattr(anomalib_mediclip, name)


def _subclasses(base: Any) -> list[Any]:
    """Return all subclasses, direct and indirect."""
    return [found for child in base.__subclasses__() for found in (child, *_subclasses(child))]
