# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Import hook that makes the plugin visible to anomalib, installed by the interpreter's start-up line.

anomalib 2.7 has no plugin mechanism: short names such as ``--model MediCLIP`` resolve only among classes that are
already imported. The distribution therefore installs ``anomalib_mediclip_autoload.pth``, which imports this module
when Python starts. The hook waits until a module of anomalib named in ``HOSTS`` has been imported. It then imports the
module of the plugin that belongs to it, and calls its function ``install`` if it has one. Only modules that every
interpreter has already loaded are imported here, so a process that never imports anomalib pays well under a
millisecond.

Set ``ANOMALIB_MEDICLIP_AUTOLOAD=0`` to switch the hook off.
"""

import os
import sys

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the import
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# module of anomalib -> module of the plugin that installs itself there
HOSTS = {
    "anomalib.data": "anomalib_mediclip.data",
    "anomalib.models": "anomalib_mediclip.models",
    "anomalib.engine": "anomalib_mediclip.host.engine",
    "anomalib.cli": "anomalib_mediclip.host.command_line",
    "anomalib.cli.pipelines": "anomalib_mediclip.commands",
}


class AnomalibFinder:
    """Meta path finder that imports a module of the plugin once its host module has been executed."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> "ModuleSpec | None":  # noqa: ARG002
        """Let the other finders locate a host module, and wrap its loader."""
        if fullname not in HOSTS or self._searching:
            return None
        from importlib.util import find_spec

        self._searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _installing(spec.loader.exec_module, fullname)  # type: ignore
        return spec


def _installing(exec_module: "Callable[[ModuleType], None]", host: str) -> "Callable[[ModuleType], None]":
    """Wrap a loader's ``exec_module`` so that the plugin is installed in the module it has just executed."""

    def exec_and_install(module: "ModuleType") -> None:
        exec_module(module)
        install_in(host)

    return exec_and_install


def install_in(host: str) -> None:
    """Install the plugin in a module of anomalib; on failure warn with the reason and leave anomalib alone.

    Args:
        host (str): Key of ``HOSTS``, already imported.
    """
    try:
        from importlib import import_module

        plugin = import_module(HOSTS[host])
        if hasattr(plugin, "install"):
            plugin.install()
    except Exception as error:  # whatever breaks in the plugin must not break anomalib
        import warnings

        msg = (
            f"anomalib-mediclip could not register itself with {host} ({type(error).__name__}: {error}); anomalib goes "
            "on without it. Reinstall anomalib-mediclip, or set ANOMALIB_MEDICLIP_AUTOLOAD=0 to silence this."
        )
        warnings.warn(msg, RuntimeWarning, stacklevel=2)


def add_finder() -> None:
    """Put the finder first on ``sys.meta_path``, once, unless ``ANOMALIB_MEDICLIP_AUTOLOAD`` is ``0``."""
    if os.environ.get("ANOMALIB_MEDICLIP_AUTOLOAD", "1") == "0":
        return
    if not any(isinstance(finder, AnomalibFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AnomalibFinder())


add_finder()
