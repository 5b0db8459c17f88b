# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Nodes that differ are named, with what differs."""

import sys
from pathlib import Path

import pytest

from anomalib_mediclip.cluster.agreement import check_this_node, facts_of_this_node
from anomalib_mediclip.cluster.options import ClusterOptions, require_cluster
from anomalib_mediclip.cluster.ray_session import available_slots, ray_session


def test_the_same_node_agrees(tmp_path: Path) -> None:
    model = tmp_path / "model.ckpt"
    model.write_bytes(b"weights")
    check_this_node(facts_of_this_node([model]), [model])


def test_another_version_and_another_checkpoint_are_named(tmp_path: Path) -> None:
    model = tmp_path / "model.ckpt"
    model.write_bytes(b"weights")
    facts = facts_of_this_node([model]) | {"torch": "1.0"}
    model.write_bytes(b"others!")
    with pytest.raises(
        RuntimeError, match=r"model.ckpt is \w{12}... there and \w{12}... here; torch is .* and 1.0 here"
    ):
        check_this_node(facts, [model])
    model.unlink()
    with pytest.raises(RuntimeError, match=r"model.ckpt is missing there"):
        check_this_node(facts, [model])


def test_the_extra_is_named_when_ray_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib-mediclip\[cluster\]'"):
        require_cluster("ray", purpose="The launcher ray")
    with pytest.raises(ModuleNotFoundError), ray_session(None):
        pass


@pytest.mark.parametrize("address", ["10.0.0.1", "head:port"])
def test_an_address_without_port_is_explained(address: str) -> None:
    with pytest.raises(ConnectionError, match="give host:port"), ray_session(address):
        pass


@pytest.mark.parametrize("wrong", [{"cpus": 0}, {"gpus": -1.0}, {"retries": -1}, {"time_limit": 0}])
def test_numbers_without_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"cluster.{next(iter(wrong))}"):
        ClusterOptions(**wrong)


class Nodes:
    """Nodes as Ray describes them."""

    @staticmethod
    def nodes() -> list[dict]:
        alive = [{"CPU": 5.0, "GPU": 1.0}, {"CPU": 3.0}, {}]
        return [*({"Alive": True, "Resources": has} for has in alive), {"Alive": False, "Resources": {"CPU": 64.0}}]


def test_tasks_fit_into_nodes_not_into_their_sum() -> None:
    assert available_slots(Nodes, cpus=2, gpus=0) == 3
    assert available_slots(Nodes, cpus=2, gpus=0.5) == 2
    assert available_slots(Nodes, cpus=8, gpus=0) == 0
