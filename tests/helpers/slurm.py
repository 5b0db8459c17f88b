# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A real Slurm of one node on this machine, for those who may start it."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={first}
SlurmdPort={second}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_for_slurm() -> str:
    """Say why Slurm cannot be started here; empty if it can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"Slurm is not installed: no {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "Slurm's services want to be started by root"


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Start Slurm, point this process and its children to it, and stop it at the end."""
    munge = folder / "munge"
    for name in (munge, folder / "state", folder / "spool"):
        name.mkdir(parents=True)
    (munge / "key").write_bytes(secrets.token_bytes(1024))
    (munge / "key").chmod(0o600)
    configuration = folder / "slurm.conf"
    first, second = _free_ports(2)
    host, cpus = socket.gethostname().partition(".")[0], os.cpu_count()
    text = CONFIGURATION.format(host=host, folder=folder, cpus=cpus, first=first, second=second)
    configuration.write_text(text)
    os.environ["SLURM_CONF"] = str(configuration)
    files = [f"--{name}={munge / path}" for name, path in MUNGE_FILES.items()]
    commands = [
        ["munged", "--foreground", "--force", *files],
        ["slurmctld", "-D", "-c", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration)],
    ]
    services: list[subprocess.Popen] = []
    try:
        for command in commands:
            log = (folder / f"{command[0]}.out").open("w")
            services.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(1)
        _wait_for_node(folder)
        yield
        _wait_for("squeue", "--noheader", answer="")  # daemons of jobs that end later would stay for ever
    finally:
        for service in reversed(services):
            service.terminate()
            service.wait(timeout=20)
        del os.environ["SLURM_CONF"]


MUNGE_FILES = {
    "key-file": "key",
    "socket": "socket",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _wait_for_node(folder: Path) -> None:
    """Wait until the node takes jobs."""
    said = _wait_for("sinfo", "--noheader", "--format=%T", answer="idle")
    if said != "idle":
        logs = "\n".join(path.read_text()[-1500:] for path in sorted(folder.glob("*.out")))
        raise RuntimeError(f"Slurm did not start: {said}\n{logs}")


def _wait_for(*command: str, answer: str) -> str:
    """Ask until the answer is the wanted one, for half a minute, and return the last one."""
    for _ in range(60):
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if said == answer:
            break
        time.sleep(0.5)
    return said


def _free_ports(number: int) -> list[int]:
    """Return ports at which nobody listens."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
