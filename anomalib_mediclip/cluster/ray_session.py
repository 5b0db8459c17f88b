# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A connection to Ray: to a running cluster, or to one on this machine that nobody else can reach.

Ray runs what anybody who reaches its ports sends. Ports are therefore bound to the loopback interface, a token is asked
for, and the dashboard is off.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from anomalib_mediclip.cluster.options import ClusterError, require_cluster

SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
# Ray turns 127.0.0.1 into the address of the network card and then listens on all interfaces, unless it takes this
# machine for one that forms no clusters.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
SECONDS_TO_CONNECT = 10


@contextlib.contextmanager
def ray_session(address: str | None, cpus: int | None = None) -> Iterator[Any]:
    """Connect to Ray, and disconnect at the end.

    Args:
        address (str | None): Running cluster, ``host:port``; None starts Ray on this machine, for this process.
        cpus (int | None, optional): CPU cores of a Ray that is started. Defaults to ``None``: all.

    Yields:
        Any: The module ``ray``, connected.

    Raises:
        ModuleNotFoundError: If Ray is not installed.
        ConnectionError: If the cluster cannot be reached, or refuses the token.
    """
    require_cluster("ray", purpose="The launcher ray")
    for name, value in (SETTINGS if address else SETTINGS | LOOPBACK).items():
        os.environ.setdefault(name, value)
    import ray

    if address:
        _check_reachable(address)
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": cpus}
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else own)
        )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        msg = f"no connection to Ray at {address or 'this machine'}: {reason}."
        if address:
            msg += " The token of the cluster must be in RAY_AUTH_TOKEN or ~/.ray/auth_token, and Ray of one version."
        raise ConnectionError(msg) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Refuse an address at which nobody listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        msg = f"cluster address {address}: give host:port, such as 10.0.0.1:6379, as `ray start --head` prints it"
        raise ConnectionError(msg)
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_CONNECT).close()
    except OSError as error:
        msg = (
            f"no Ray cluster can be reached at {address} ({error.strerror or error}). Start one with "
            "`ray start --head` on that machine, or leave out the address to run on this one."
        )
        raise ConnectionError(msg) from error


def check_room(ray: Any, cpus: int, gpus: float) -> None:
    """Refuse to wait for a node that will never come.

    Args:
        ray (Any): The module, connected.
        cpus (int): CPU cores of a task.
        gpus (float): GPUs of a task.

    Raises:
        ClusterError: If no node is large enough.
    """
    if not available_slots(ray, cpus, gpus):
        sizes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        largest = ", ".join(f"{max(size.get(kind, 0) for size in sizes):g} {kind}" for kind in ("CPU", "GPU"))
        msg = f"no node of the Ray cluster has {cpus} CPU cores and {gpus:g} GPUs at once; the largest have {largest}"
        raise ClusterError(msg)


def available_slots(ray: Any, cpus: int, gpus: float) -> int:
    """Count how many tasks the nodes that are alive can run at once.

    Args:
        ray (Any): The module, connected.
        cpus (int): CPU cores of a task.
        gpus (float): GPUs of a task.

    Returns:
        int: Number, 0 if no node is large enough.
    """
    slots = 0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        fitting = int(has.get("CPU", 0) // cpus)
        slots += min(fitting, int(has.get("GPU", 0) / gpus)) if gpus else fitting
    return slots
