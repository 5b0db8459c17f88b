# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Description of a model in its checkpoints, and the checks that refuse a checkpoint of another model.

The same learnt weights under another option, or over another frozen encoder, would give maps without meaning. The
description therefore holds every option of the model that is not known to matter in training only.
"""

import inspect
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from anomalib_mediclip import __version__

MODEL = "model"  # key in checkpoints: name of the model's class
OPTIONS = "options"
ENCODER = "frozen_encoder"


def describe_options(options: Mapping[str, Any], training_only: Collection[str]) -> dict[str, Any]:
    """Return the options that decide which map the learnt weights give.

    Args:
        options (Mapping[str, Any]): Constructor arguments of a model.
        training_only (Collection[str]): Names of options that matter in training only.

    Returns:
        dict[str, Any]: Plain data.
    """
    return {name: _plain(value) for name, value in options.items() if name not in training_only}


def trained_model(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the name of the model class that wrote a checkpoint, None if it is not one of this plugin."""
    # before 0.1.0 the name stood in the description of the encoder
    return checkpoint.get(MODEL) or checkpoint.get(ENCODER, {}).get("model")


def check_model(checkpoint: Mapping[str, Any], present: str) -> None:
    """Refuse a checkpoint of another model.

    Args:
        checkpoint (Mapping[str, Any]): Checkpoint.
        present (str): Name of the class of the model that loads it.

    Raises:
        ValueError: If the checkpoint is of another model, or of none of this plugin.
    """
    trained = trained_model(checkpoint)
    if trained is None:
        msg = "The checkpoint names no model: it was not written by anomalib-mediclip."
        raise ValueError(msg)
    if trained != present:
        msg = f"The checkpoint belongs to {trained}, this model is {present}. Give --model accordingly."
        raise ValueError(msg)


def check_options(checkpoint: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was trained under other options.

    Args:
        checkpoint (Mapping[str, Any]): Checkpoint.
        present (Mapping[str, Any]): Options of the model that loads it, from :func:`describe_options`.

    Raises:
        ValueError: If an option differs, or only one of the two has it; names it and the cure.
    """
    trained: Mapping[str, Any] = checkpoint[OPTIONS] if OPTIONS in checkpoint else checkpoint[ENCODER]["settings"]
    # an option that a version did not know yet was off
    trained = {name: value for name, value in present.items() if not value} | dict(trained)
    unlike = sorted(trained.keys() ^ present.keys())
    if unlike:
        version = checkpoint.get("training_record", {}).get("versions", {}).get("anomalib-mediclip", "not recorded")
        msg = (
            f"The checkpoint was written by another version of anomalib-mediclip ({version}; this is {__version__}): "
            f"only one of them has {', '.join(unlike)}. Install that version, or train again."
        )
        raise ValueError(msg)
    cures = [f"--model.{name} {value}" for name, value in trained.items() if present[name] != value]
    if cures:
        msg = f"The checkpoint was trained with other settings than this model has. Give {', '.join(cures)}."
        raise ValueError(msg)


def check_run(started: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse to resume a run with options that would make it another run.

    Args:
        started (Mapping[str, Any]): Constructor arguments that the run was started with; what a version did not know
            yet is missing, and was None.
        present (Mapping[str, Any]): Those of the model that resumes it which must be the same.

    Raises:
        ValueError: If one differs; names both values and the cure.
    """
    for name, value in present.items():
        former = started.get(name)
        if former != value:
            given, needed = ("null" if choice is None else choice for choice in (value, former))
            msg = (
                f"The run was started with --model.{name} {needed}, and is resumed with {given}: that would be another "
                f"training. Give --model.{name} {needed}, or start anew without the checkpoint."
            )
            raise ValueError(msg)


def check_given_options(trained: Mapping[str, Any], given: Mapping[str, Any], free: Collection[str]) -> None:
    """Refuse options that a user gives beside a checkpoint, and that differ from those in training.

    Args:
        trained (Mapping[str, Any]): Options of the checkpoint's model.
        given (Mapping[str, Any]): Options that the user gives.
        free (Collection[str]): Names of options that may differ.

    Raises:
        ValueError: If others differ; names both values of each.
    """
    differing = [
        f"--model.{name} {given[name]} is given, the checkpoint was trained with {trained[name]}"
        for name in given
        if name in trained and name not in free and _plain(given[name]) != _plain(trained[name])
    ]
    if differing:
        msg = f"{'; '.join(differing)}. Leave out what comes from the checkpoint, or give another checkpoint."
        raise ValueError(msg)


def check_arguments(model: type, given: Iterable[str], further: Collection[str]) -> None:
    """Refuse arguments that a model does not have: Lightning would ignore them.

    Args:
        model (type): Class of the model.
        given (Iterable[str]): Names of the arguments.
        further (Collection[str]): Names that are allowed besides.

    Raises:
        TypeError: If there is another name; names it and the one it may stand for.
    """
    parameters = inspect.signature(model).parameters
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in given:
        if name not in parameters and name not in further:
            similar = get_close_matches(name, parameters, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(parameters)}."
            msg = f"{model.__name__} has no argument {name!r}: {hint}"
            raise TypeError(msg)


def describe_encoder(options: Mapping[str, Any], encoder_hash: str) -> dict[str, Any]:
    """Describe a frozen encoder.

    Args:
        options (Mapping[str, Any]): Constructor arguments of the model.
        encoder_hash (str): Hash of the encoder's weights.

    Returns:
        dict[str, Any]: ``name``, ``weights`` and ``hash``.
    """
    return {"name": options["encoder"], "weights": options["weights"], "hash": encoder_hash}


def check_encoder_name(checkpoint: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was trained on an encoder of another name.

    Args:
        checkpoint (Mapping[str, Any]): Checkpoint.
        present (Mapping[str, Any]): Encoder of the model that loads it, from :func:`describe_encoder`.

    Raises:
        ValueError: If the names differ; names both and the cure.
    """
    names = checkpoint[ENCODER]["name"], present["name"]
    moved = all(name.startswith("local-dir:") for name in names)  # a folder may lie elsewhere; the hash decides
    if names[0] != names[1] and not moved:
        msg = (
            f"The checkpoint was trained on the encoder {names[0]!r}, this model has {names[1]!r}. "
            "Give the configuration it was trained with, or --model.encoder, --model.weights and --model.layers."
        )
        raise ValueError(msg)


def check_encoder_hash(checkpoint: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was trained on other weights of the encoder.

    Args:
        checkpoint (Mapping[str, Any]): Checkpoint.
        present (Mapping[str, Any]): Encoder of the model that loads it, from :func:`describe_encoder`.

    Raises:
        ValueError: If the hashes differ; names both and the cure.
    """
    trained = checkpoint[ENCODER]
    if trained["hash"] != present["hash"]:
        msg = (
            f"The checkpoint was trained on other weights of {trained['name']!r} ({trained['weights']}, hash "
            f"{trained['hash']}) than this model has ({present['weights']}, hash {present['hash']}). "
            "Give --model.weights as in training."
        )
        raise ValueError(msg)


def _plain(value: Any) -> Any:
    """Return sequences as lists: configurations have them as lists, defaults as tuples."""
    return list(value) if isinstance(value, list | tuple) else value
