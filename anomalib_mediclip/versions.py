# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Versions of what results depend on: for records, model cards and reports."""

import contextlib
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from anomalib_mediclip import __version__

PACKAGES = ("anomalib", "lightning", "torch", "torchvision", "timm", "open_clip_torch")
EXPORT_PACKAGES = (*PACKAGES, "onnx", "onnxscript", "openvino", "nncf")


def installed_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python, of this plugin and of packages that are installed.

    Args:
        packages (Sequence[str], optional): Names of distributions. Defaults to those that training depends on.

    Returns:
        dict[str, str]: Versions by name.
    """
    versions = {"python": platform.python_version(), "anomalib-mediclip": __version__}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def versions_in_words(packages: Sequence[str]) -> str:
    """Return versions for a table or a page.

    Args:
        packages (Sequence[str]): Names of distributions.

    Returns:
        str: ``name version``, separated by semicolons.

    Example:
        >>> versions_in_words(["no-such-package"])
        'no-such-package not installed'
    """
    installed = installed_versions(packages)
    return "; ".join(f"{package} {installed.get(package, 'not installed')}" for package in packages)
