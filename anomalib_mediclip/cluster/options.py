# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Where work runs, what it gets there, and the packages that this needs."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

Launcher = Literal["local", "ray", "slurm"]


class ClusterError(RuntimeError):
    """A cluster cannot do the work; the message says why, and what helps."""


@dataclass(frozen=True)
class ClusterOptions:
    """What a job gets of a cluster.

    Args:
        address (str | None, optional): Running Ray cluster, such as ``10.0.0.1:6379``. Defaults to ``None``: Ray is
            started on this machine, and can be reached from this machine only.
        cpus (int, optional): CPU cores of a job. Defaults to ``1``.
        gpus (float, optional): GPUs of a job; 0.5 lets two jobs share one with Ray. Defaults to ``0``.
        retries (int, optional): How often a job is started again whose node or process dies. Defaults to ``3``.
        time_limit (int, optional): Minutes after which Slurm ends a job, which is then queued again. Defaults to
            ``240``.
        slurm (dict[str, Any], optional): Further options of ``sbatch`` by their long names, such as
            ``{partition: gpu, mem: 16G}``. Defaults to none.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0
    retries: int = 3
    time_limit: int = 240
    slurm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ValueError: If one is out of range.
        """
        lowest = {"cpus": 1, "gpus": 0, "retries": 0, "time_limit": 1}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                msg = f"cluster.{name} {getattr(self, name)}: give at least {least}"
                raise ValueError(msg)


def require_cluster(*modules: str, purpose: str) -> None:
    """Refuse to go on without the packages of the extra ``cluster``.

    Args:
        *modules (str): Names of modules.
        purpose (str): What needs them, as the beginning of a sentence.

    Raises:
        ModuleNotFoundError: If one is absent.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        msg = f"{purpose} needs {', '.join(missing)}: pip install 'anomalib-mediclip[cluster]'"
        raise ModuleNotFoundError(msg, name=missing[0])
