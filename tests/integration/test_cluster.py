# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Benchmarks and archives on a real cluster of Ray, whose nodes and drivers are killed; benchmarks by submitit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from anomalib_mediclip.archive import Workers, predict_archive
from anomalib_mediclip.archive.crew import Crew, GivenUp
from anomalib_mediclip.archive.plan import PARTS
from anomalib_mediclip.archive.shard import Report
from tests.conftest import REPOSITORY
from tests.helpers.archive import write_archive, write_checkpoint
from tests.helpers.cluster import NODE, quiet_descriptors, ray_cluster
from tests.integration.test_benchmark import MEDICLIP, command, write_config

pytestmark = pytest.mark.slow

MEASURED = ["fit_seconds", "test_seconds", "images_per_second", "latency_ms", "peak_memory_mb"]  # differ in every run
ANOMALIB = str(Path(sys.executable).with_name("anomalib"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, and two nodes of one each."""
    with ray_cluster(2) as started:
        yield started


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums of several threads are rounded in another order
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def replace_node(cluster: Any) -> None:
    """Kill a node as a power cut does, and add another one."""
    with quiet_descriptors():
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        cluster.add_node(**NODE)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait for something that a process does."""
    while not happened():
        assert process.poll() is None, "ended before"
        time.sleep(0.05)


def test_a_sweep_outlives_a_node_and_equals_one_on_this_machine(
    cluster: Any, sample_data: Path, tmp_path: Path
) -> None:
    write_config(tmp_path, sample_data, {"MediCLIP": MEDICLIP}, seeds=[0, 1, 2])
    arguments = [*command(tmp_path)[:-1], "ray", "--launcher", "ray", "--cluster.address", cluster.address]
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen(arguments, cwd=tmp_path, stdout=printed, stderr=subprocess.STDOUT)
        wait_until(lambda: len(list((tmp_path / "ray" / "jobs").glob("*.json"))) >= 1, process)
        replace_node(cluster)
        assert process.wait() == 0, (tmp_path / "printed").read_text()
    assert " running, 0 failed, 0 waiting" in (tmp_path / "printed").read_text()
    subprocess.run(command(tmp_path), cwd=tmp_path, capture_output=True, check=True)
    local, ray = (pd.read_csv(tmp_path / folder / "results.csv").drop(columns=MEASURED) for folder in ("out", "ray"))
    pd.testing.assert_frame_equal(local, ray, check_exact=True)
    scores = [(tmp_path / folder / "scores" / "sample.csv").read_bytes() for folder in ("out", "ray")]
    assert scores[0] == scores[1]


def test_an_archive_outlives_its_driver_and_a_node(cluster: Any, sample_data: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, sample_data)
    images = write_archive(tmp_path / "in", 900, 6, in_folder=100)
    arguments = [ANOMALIB, "mediclip", "predict_archive", str(checkpoint), str(images), str(tmp_path / "ray")]
    arguments += ["--shards", "40", "--launcher", "ray", "--address", cluster.address, "--top", "1"]
    parts = tmp_path / "ray" / PARTS
    first = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(parts.glob("0*.csv"))) >= 3, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    finished = len(list(parts.glob("0*.csv")))
    assert finished < 40
    with (tmp_path / "printed").open("w") as printed:
        second = subprocess.Popen(arguments, stdout=printed, stderr=subprocess.STDOUT)
        wait_until(lambda: len(list(parts.glob("0*.csv"))) >= finished + 3, second)
        replace_node(cluster)
        assert second.wait() == 0, (tmp_path / "printed").read_text()
    table = pd.read_csv(tmp_path / "ray" / "predictions.csv")
    assert table["file"].tolist() == [str(path) for path in sorted(images.rglob("*.png"))]
    assert (table["label"] == "unreadable").sum() == 6
    summary = predict_archive(checkpoint, images, tmp_path / "here", Workers(cpus=1), shards=40, top=1)
    assert (tmp_path / "ray" / "predictions.csv").read_bytes() == summary.table.read_bytes()


class Doomed:
    """A worker that one of its shards kills."""

    def open(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def predict(self, shard: int) -> Report:
        if shard == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return Report(shard, images=1, unreadable=0, changed=0)


def test_a_shard_that_kills_its_workers_is_given_up_and_the_rest_goes_on(cluster: Any) -> None:
    from anomalib_mediclip.cluster.ray_session import ray_session

    with ray_session(cluster.address) as ray:
        actor = ray.remote(num_cpus=1, max_restarts=0)(Doomed)
        outcomes = [one for one in Crew(ray, actor.remote, lambda: 2, range(12)).run() if one is not None]
    assert sorted(one.shard for one in outcomes if isinstance(one, Report)) == [0, 1, 2, *range(4, 12)]
    (given_up,) = (one for one in outcomes if isinstance(one, GivenUp))
    assert given_up.shard == 3
    assert "the process died" in given_up.reason


LISTENING = """
import psutil
from anomalib_mediclip.cluster.ray_session import ray_session
with ray_session(None, 1) as ray:
    ray.get(ray.remote(lambda: 1).remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [one.laddr.ip for each in processes for one in each.net_connections("inet") if one.status == "LISTEN"]
    print(sorted(set(found)), len(found) > 4, ray.get_runtime_context().gcs_address)
"""


CONNECTING = """
import sys
from anomalib_mediclip.cluster.ray_session import ray_session
with ray_session(sys.argv[1]):
    pass
"""


def test_a_wrong_token_is_refused(cluster: Any) -> None:
    arguments = [sys.executable, "-c", CONNECTING, cluster.address]
    wrong = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
    result = subprocess.run(arguments, capture_output=True, text=True, env=wrong, check=False)
    assert result.returncode == 1
    assert "The token of the cluster must be in RAY_AUTH_TOKEN" in result.stderr


def test_a_ray_of_its_own_is_reached_from_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)  # what the other cluster of this module is told
    result = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    addresses, has_several, _ = result.stdout.rsplit(maxsplit=2)
    assert has_several == "True"
    assert {one.rpartition(":")[2] for one in eval(addresses)} == {"127.0.0.1"}


def test_a_cluster_that_is_not_there_is_said_at_once(sample_data: Path, tmp_path: Path) -> None:
    write_config(tmp_path, sample_data, {"MediCLIP": MEDICLIP}, seeds=[0])
    arguments = [*command(tmp_path), "--launcher", "ray", "--cluster.address", "127.0.0.1:9"]
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "no Ray cluster can be reached at 127.0.0.1:9 (Connection refused)" in result.stderr
    assert "Traceback" not in result.stderr
