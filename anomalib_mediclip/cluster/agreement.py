# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Whether all nodes of a cluster have the same software and see the same files."""

import platform
import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from anomalib_mediclip.cluster.options import ClusterError
from anomalib_mediclip.io import hash_of_file
from anomalib_mediclip.versions import PACKAGES, installed_versions

CHECKED = (*PACKAGES, "numpy", "openvino", "onnxruntime")
MISSING = "missing"


def facts_of_this_node(files: Sequence[Path]) -> dict[str, str]:
    """Return what must be equal on all nodes.

    Args:
        files (Sequence[Path]): Files, such as a checkpoint, that all nodes must read alike.

    Returns:
        dict[str, str]: Versions by package, and the SHA-256 or ``missing`` by file.
    """
    return installed_versions(CHECKED) | {str(file): _hash(file) for file in files}


def _hash(file: Path) -> str:
    """Return the hash of a file, or that it is not there."""
    try:
        status = file.stat()
        return _hash_once(file, status.st_size, status.st_mtime_ns)
    except OSError:
        return MISSING


@lru_cache(maxsize=8)
def _hash_once(file: Path, size: int, modified: int) -> str:
    """Return the hash of a file; every task of a worker asks for it."""
    del size, modified
    return hash_of_file(file)


def check_this_node(expected: Mapping[str, str], files: Sequence[Path]) -> None:
    """Refuse to work on a node that differs from the one that started the work.

    Args:
        expected (Mapping[str, str]): Facts of that node, from :func:`facts_of_this_node`.
        files (Sequence[Path]): The same files.

    Raises:
        ClusterError: If versions or files differ, naming each.
    """
    found = facts_of_this_node(files)
    differences = [
        f"{name} is {_short(found.get(name, MISSING))} there and {_short(expected.get(name, MISSING))} here"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if differences:
        msg = (
            f"node {socket.gethostname()} ({platform.machine()}) differs: {'; '.join(differences)}. Install the same "
            "versions on all nodes, and put files where all nodes see them under the same path."
        )
        raise ClusterError(msg)


def _short(value: str) -> str:
    """Return a version as it is, and a hash by its beginning."""
    return value if len(value) < 40 else f"{value[:12]}..."


def check_all_nodes(ray: Any, expected: Mapping[str, str], files: Sequence[Path]) -> None:
    """Ask every node that is alive, before any work.

    Args:
        ray (Any): The module, connected.
        expected (Mapping[str, str]): Facts of this node.
        files (Sequence[Path]): Files that all nodes must see.

    Raises:
        ClusterError: If a node differs, naming it and what differs.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(_differences_there)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    answers = ray.get(
        [
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(expected, files)
            for node in nodes
        ]
    )
    problems = [answer for answer in answers if answer]
    if problems:
        raise ClusterError("\n".join(problems))


def _differences_there(expected: Mapping[str, str], files: Sequence[Path]) -> str:
    """Return what is wrong with a node, as text: an error would bring a traceback along."""
    try:
        check_this_node(expected, files)
    except ClusterError as error:
        return str(error)
    return ""
