# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Data modules that another data module is given as plain data: ``class_path`` and ``init_args``."""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser


def make_datamodule(
    base: type[Any], name: str, specification: Mapping[str, Any] | None, arguments: Mapping[str, Any]
) -> Any:
    """Make a data module without reading anything, checked by jsonargparse as on the command line.

    Args:
        base (type[Any]): Class of data modules of which it must be, itself or a subclass.
        name (str): Option that holds the specification, for messages: ``"data.parts.busi"``.
        specification (Mapping[str, Any] | None): ``class_path``, a name or full path, and perhaps ``init_args``.
        arguments (Mapping[str, Any]): Further arguments. They are not to be among the ``init_args``.

    Returns:
        Any: Data module of that class.

    Raises:
        ValueError: If the specification has another form, there is no such class or argument, or an argument is given
            in two places.
    """
    if not isinstance(specification, Mapping) or "class_path" not in specification:
        msg = f"{name} is {specification!r}: give a mapping with class_path and init_args"
        raise ValueError(msg)
    init_args = dict(specification.get("init_args") or {})
    twice = sorted(arguments.keys() & init_args.keys())
    if twice:
        options = ", ".join(f"data.{key}" for key in twice)
        msg = f"{name} sets {', '.join(twice)}, which must be the same for all data: give {options} instead"
        raise ValueError(msg)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it", fail_untyped=False, required=True)
    # jsonargparse changes nested values
    given = {"class_path": specification["class_path"], "init_args": {**deepcopy(init_args), **arguments}}
    try:
        return parser.instantiate_classes(parser.parse_object({"it": given})).it
    except ArgumentError as error:
        msg = f"{name} is no {base.__name__}: {error}"
        raise ValueError(msg) from error


def shared_arguments(base: type[Any]) -> dict[str, Any]:
    """Return the arguments that all data modules of a class have, except the folder, with their defaults.

    Args:
        base (type[Any]): Class.

    Returns:
        dict[str, Any]: Defaults by name.
    """
    parameters = inspect.signature(base).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name != "root"}
