# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Wrapping of methods and functions of anomalib, once however often it is asked for."""

from collections.abc import Callable
from functools import wraps
from typing import Any


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Wrap a method of a class, or a function of a module.

    Args:
        owner (Any): Class or module.
        name (str): Name of the method or function.
        around (Callable[..., Any]): Called in its place, with the original as the first argument.
    """
    method: Any = getattr(owner, name)
    if hasattr(method, "wrapped_by_anomalib_mediclip"):
        return

    @wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(method, *args, **kwargs)

    wrapped.wrapped_by_anomalib_mediclip = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)
