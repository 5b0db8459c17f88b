# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The process that holds the model and predicts shard by shard: this one, or actors of Ray."""

import os
from collections.abc import Mapping

from anomalib_mediclip.archive.plan import Plan
from anomalib_mediclip.archive.predictors import Predictor, open_predictor
from anomalib_mediclip.archive.shard import Report, predict_shard
from anomalib_mediclip.cluster.agreement import check_this_node

MIN_READERS = 2


class Worker:
    """Predicts shards.

    Args:
        plan (Plan): Plan.
        threads (int): CPU cores.
        device (str): ``cpu`` or ``cuda``.
        facts (Mapping[str, str]): What must be equal on the node where it runs, see
            :mod:`anomalib_mediclip.cluster.agreement`.
    """

    def __init__(self, plan: Plan, threads: int, device: str, facts: Mapping[str, str]) -> None:
        self.plan = plan
        self.threads = threads
        self.device = device
        self.facts = facts
        self._predictor: Predictor | None = None

    def open(self) -> str:
        """Load the model.

        Returns:
            str: Node of Ray on which it is, empty in a process without Ray.

        Raises:
            RuntimeError: If versions or files of the node differ from those of the process that started the work.
        """
        check_this_node(self.facts, [self.plan.model, self.plan.manifest])
        os.environ.update(self.plan.reading)
        self._predictor = open_predictor(self.plan.model, self.threads, self.device)
        if "RAY_NODE_ID" in os.environ or "RAY_JOB_ID" in os.environ:
            import ray

            return str(ray.get_runtime_context().get_node_id())
        return ""

    def predict(self, shard: int) -> Report:
        """Predict a shard, and write its rows.

        Args:
            shard (int): Number.

        Returns:
            Report: What came of it.

        Raises:
            OSError: If the rows cannot be written.
        """
        if self._predictor is None:
            self.open()
        assert self._predictor is not None
        return predict_shard(self.plan, shard, self._predictor, max(MIN_READERS, self.threads))
