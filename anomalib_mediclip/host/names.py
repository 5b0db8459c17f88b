# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Short names: the plugin's classes as attributes of anomalib's own packages."""

from importlib import import_module


def show_in(host: str, *classes: type) -> None:
    """Make classes attributes of a package of anomalib, where its functions look for short names.

    Args:
        host (str): ``"anomalib.data"`` or ``"anomalib.models"``.
        *classes (type): Classes of the plugin.
    """
    package = import_module(host)
    for shown in classes:
        setattr(package, shown.__name__, shown)


def allow_models_of(*packages: str) -> None:
    """Let ``anomalib benchmark`` import model classes from packages of the plugin.

    Args:
        *packages (str): Full names of packages.
    """
    import_module("anomalib.models").ALLOWED_MODULES.update(packages)
