# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint says of the model it belongs to, and when a model refuses it.

Checkpoints hold what was learnt but not the frozen encoder. The same learnt weights over another encoder, or under
another temperature, would give maps without meaning, so both are described in the checkpoint and compared on loading.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from anomalib_mediclip import __version__


def describe_model(
    model: str,
    options: Mapping[str, Any],
    encoder_hash: str,
    settings: Sequence[str],
) -> dict[str, Any]:
    """Describe a model in plain data.

    Args:
        model (str): Name of the model's class.
        options (Mapping[str, Any]): Constructor arguments of the model.
        encoder_hash (str): Hash of the weights of its frozen encoder.
        settings (Sequence[str]): Names of the options that decide what map the learnt weights give.

    Returns:
        dict[str, Any]: Class of the model, name, weights and hash of the encoder, and the settings that decide the map.
    """
    return {
        "model": model,
        "name": options["encoder"],
        "weights": options["weights"],
        "hash": encoder_hash,
        "settings": {name: _plain(options[name]) for name in settings},
    }


def check_model(
    trained: dict[str, Any] | None, present: dict[str, Any], versions: Mapping[str, str] | None = None
) -> None:
    """Refuse a checkpoint that would give this model other maps than the one it was trained in.

    Args:
        trained (dict[str, Any] | None): Description in the checkpoint.
        present (dict[str, Any]): Description of the model that loads it.
        versions (Mapping[str, str] | None, optional): Versions that the checkpoint was written with.
            Defaults to ``None``: not recorded.

    Raises:
        ValueError: If encoder, its weights or a setting differ, or are of another version; names both and the cure.
    """
    if trained is None:
        msg = "The checkpoint describes no frozen encoder: it was not written by anomalib-mediclip."
        raise ValueError(msg)
    if trained["model"] != present["model"]:
        msg = (
            f"The checkpoint belongs to {trained['model']}, this model is {present['model']}. Give --model accordingly."
        )
        raise ValueError(msg)
    names = trained["name"], present["name"]
    moved = all(name.startswith("local-dir:") for name in names)  # a folder may lie elsewhere; the hash decides
    if names[0] != names[1] and not moved:
        msg = (
            f"The checkpoint was trained on the encoder {names[0]!r}, this model has {names[1]!r}. "
            "Give the configuration it was trained with, or --model.encoder, --model.weights and --model.layers."
        )
        raise ValueError(msg)
    _check_version(trained["settings"], present["settings"], (versions or {}).get("anomalib-mediclip"))
    _check_settings(trained["settings"], present["settings"])
    if trained["hash"] != present["hash"]:
        msg = (
            f"The checkpoint was trained on other weights of {names[0]!r} ({trained['weights']}, hash "
            f"{trained['hash']}) than this model has ({present['weights']}, hash {present['hash']}). "
            "Give --model.weights as in training."
        )
        raise ValueError(msg)


def _check_version(trained: dict[str, Any], present: dict[str, Any], version: str | None) -> None:
    """Refuse settings that this version of the plugin does not have, or has in addition."""
    unlike = sorted(trained.keys() ^ present.keys())
    if unlike:
        msg = (
            f"The checkpoint was written by another version of anomalib-mediclip ({version or 'not recorded'}; this is "
            f"{__version__}): only one of them has {', '.join(unlike)}. Install that version, or train again."
        )
        raise ValueError(msg)


def _check_settings(trained: dict[str, Any], present: dict[str, Any]) -> None:
    """Refuse settings that differ, and say what to give."""
    cures = [f"--model.{name} {value}" for name, value in trained.items() if present[name] != value]
    if cures:
        msg = f"The checkpoint was trained with other settings than this model has. Give {', '.join(cures)}."
        raise ValueError(msg)


def _plain(value: Any) -> Any:
    """Return sequences as lists: configurations have them as lists, defaults as tuples."""
    return list(value) if isinstance(value, list | tuple) else value
