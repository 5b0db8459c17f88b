# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Import hook that makes the plugin visible to anomalib, installed by the interpreter's start-up line.

anomalib 2.7 has no plugin mechanism: short names such as ``--model MediCLIP`` resolve only among classes that are
already imported. The distribution therefore installs ``anomalib_mediclip_autoload.pth``, which imports this module
when Python starts. It puts a finder on ``sys.meta_path`` that waits for the modules of anomalib named in ``HOSTS`` to
be imported and then hands over to :mod:`anomalib_mediclip.registration`. Only modules that every interpreter has
already loaded are imported here, so that a process that never imports anomalib pays well under a millisecond.

Set ``ANOMALIB_MEDICLIP_AUTOLOAD=0`` to switch it off.
"""

import os
import sys

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the import
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

HOSTS = ("anomalib.data", "anomalib.models", "anomalib.engine", "anomalib.cli", "anomalib.cli.pipelines")


class AnomalibFinder:
    """Meta path finder that registers the plugin once a host module of anomalib has been executed."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> "ModuleSpec | None":  # noqa: ARG002
        """Let the other finders locate a host module, and have it run the registration after its own code."""
        if fullname not in HOSTS or self._searching:
            return None
        from importlib.util import find_spec

        self._searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _registering(spec.loader.exec_module, fullname)  # type: ignore
        return spec


def _registering(exec_module: "Callable[[ModuleType], None]", host: str) -> "Callable[[ModuleType], None]":
    """Wrap a loader's ``exec_module`` so that the plugin registers itself in the module it has just executed.

    What anomalib and timm announce to their own developers while they are imported is kept from the user.
    """

    def exec_and_register(module: "ModuleType") -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            exec_module(module)
        register(host)

    return exec_and_register


def register(host: str) -> None:
    """Register the plugin in a host module of anomalib; on failure warn with the reason and leave anomalib alone.

    Args:
        host (str): One of ``HOSTS``, already imported.
    """
    try:
        from anomalib_mediclip import registration

        registration.register(host)
    except Exception as error:  # whatever breaks in the plugin must not break anomalib
        import warnings

        msg = (
            f"anomalib-mediclip could not register itself with {host} ({type(error).__name__}: {error}); anomalib goes "
            "on without it. Reinstall anomalib-mediclip, or set ANOMALIB_MEDICLIP_AUTOLOAD=0 to silence this."
        )
        warnings.warn(msg, RuntimeWarning, stacklevel=2)


def install() -> None:
    """Put the finder first on ``sys.meta_path``, once, unless ``ANOMALIB_MEDICLIP_AUTOLOAD`` is ``0``."""
    if os.environ.get("ANOMALIB_MEDICLIP_AUTOLOAD", "1") == "0":
        return
    if not any(isinstance(finder, AnomalibFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AnomalibFinder())  # type: ignore[arg-type]


install()
