# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A real cluster of Ray on this machine: a head without work, and nodes that can be killed."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 80 * 1024**2}


@contextlib.contextmanager
def quiet_descriptors() -> Iterator[None]:
    """Send what processes print that are started meanwhile to nowhere: raylets that are killed dump their state."""
    kept = os.dup(1), os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextlib.contextmanager
def ray_cluster(nodes: int) -> Iterator[Any]:
    """Start a head and nodes of one CPU each; the environment gets the token, which commands inherit."""
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    from ray.cluster_utils import Cluster

    cluster: Any = None
    try:
        with quiet_descriptors():
            cluster = Cluster(
                initialize_head=True,
                head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 1024**2},
            )
            for _ in range(nodes):
                cluster.add_node(**NODE)
            cluster.wait_for_nodes()
        yield cluster
    finally:
        if cluster is not None:
            with quiet_descriptors():
                cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
