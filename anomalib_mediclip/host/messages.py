# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What a command prints: one sentence about a mistake of the user, and every line of the log once."""

import logging
import opcode
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anomalib_mediclip

logger = logging.getLogger(__name__)


def end_with_sentence(main: Callable[[], Any]) -> Any:
    """Run a command or a part of one, and end it with the message alone of an error that this package raises.

    Such an error says what the user can do. All others keep their traceback.
    """
    try:
        return main()
    except Exception as error:
        if not _is_raised_here(error):
            raise
        sys.exit(f"error: {error}")


def construct(class_type: type, *arguments: Any, **options: Any) -> Any:
    """Make a model of a command, and end the command with the sentence of an error that it raises.

    jsonargparse would try other types, and wrap the error in one of its own, of two hundred lines.
    """
    return end_with_sentence(partial(class_type, *arguments, **options))


def _is_raised_here(error: Exception) -> bool:
    """Tell whether an error comes from a ``raise`` of this package, and not from a call that failed there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_globals.get("__name__", "").startswith(f"{anomalib_mediclip.__name__}."):
        return False
    return opcode.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def misplaced_option(arguments: Sequence[str]) -> str:
    """Find an option of a model or data set that stands before its name: jsonargparse does not know it there.

    Args:
        arguments (Sequence[str]): Arguments of the command.

    Returns:
        str: What is wrong and how to mend it; empty if nothing is wrong.

    Example:
        >>> misplaced_option(["train", "--data.k_shot", "4", "--data", "MedicalFolder"])
        '--data.k_shot stands before --data MedicalFolder: give --data MedicalFolder first, then its options.'
    """
    names = [argument.partition("=")[0] for argument in arguments]
    for index, name in enumerate(names):
        if name in ("-c", "--config"):
            break  # a file may name model and data
        kind = name.partition(".")[0]
        if name == kind or kind not in ("--model", "--data") or kind in names[:index] or kind not in names:
            continue
        place = names.index(kind)
        value = arguments[place].partition("=")[2] or " ".join(arguments[place + 1 : place + 2])
        if value.rpartition(".")[2] in anomalib_mediclip.__all__:
            return f"{name} stands before {kind} {value}: give {kind} {value} first, then its options."
    return ""


def check_predicted(data: Any) -> str:
    """Look for a file or folder that ``predict`` is given, and say how to predict one that is named like a data module.

    Args:
        data (Any): Argument ``--data``: path, or configuration of a class.

    Returns:
        str: What is wrong; empty if nothing is wrong.
    """
    if isinstance(data, str | Path):
        is_there = Path(data).exists() or Path(data).parent.is_file()  # a slice is a path below its file
        return "" if is_there else f"There is no file or folder {data} (absolute: {Path(data).absolute()})."
    name = getattr(data, "class_path", "").rpartition(".")[2]
    if name and Path(name).exists():
        logger.warning(
            "--data %s is the data module. To predict the folder %s here, give --data ./%s.", name, name, name
        )
    return ""


def log_once() -> None:
    """Take away the second handler that anomalib gives to the root logger; it prints every line again, broken."""
    from rich.logging import RichHandler

    root = logging.getLogger()
    if any(type(handler) is logging.StreamHandler for handler in root.handlers):
        root.handlers = [handler for handler in root.handlers if not isinstance(handler, RichHandler)]
