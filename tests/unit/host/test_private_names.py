# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Private names of anomalib and Lightning occur in ``host/`` only, so that an upgrade of either is looked for there."""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import anomalib_mediclip

FOREIGN = ("anomalib.", "lightning.", "torchmetrics.")
PRIVATE = re.compile(r"_[a-zA-Z]\w*")


def modules_outside_host() -> list[str]:
    found = pkgutil.walk_packages(anomalib_mediclip.__path__, "anomalib_mediclip.")
    return [module.name for module in found if ".host" not in module.name and not module.name.endswith("__main__")]


def private_names_in(tree: ast.ClassDef) -> set[str]:
    """Return the private names that a class defines, or uses of itself or of its bases."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    names |= {name.id for node in tree.body for name in ast.walk(node) if isinstance(name, ast.Name)}
    return {name for name in names if PRIVATE.fullmatch(name)}


@functools.cache
def private_names_of(base: type) -> set[str]:
    """Return the private names that a class of another library defines or uses of itself."""
    used = re.findall(r"(?:self|cls)\.(_[a-zA-Z]\w*)", inspect.getsource(base))
    return {name for name in (*vars(base), *used) if PRIVATE.fullmatch(name)}


@pytest.mark.parametrize("name", modules_outside_host())
def test_no_class_uses_or_overrides_a_private_name_of_a_library(name: str) -> None:
    module = importlib.import_module(name)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for node in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        ours = private_names_in(node)
        for base in getattr(module, node.name).__mro__:
            if base.__module__.startswith(FOREIGN):
                assert not ours & private_names_of(base), f"{name}.{node.name} and {base.__module__}.{base.__name__}"


def test_the_check_finds_what_host_does() -> None:
    module = importlib.import_module("anomalib_mediclip.host.post_processor")
    (node,) = (n for n in ast.parse(inspect.getsource(module)).body if isinstance(n, ast.ClassDef))
    found = private_names_in(node) & set().union(*map(private_names_of, module.OpenPostProcessor.__mro__[1:3]))
    assert {"_normalize", "_image_threshold_metric"} <= found
