# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""One job of the benchmark: a model, a data set, a size of the support set and a seed."""

import hashlib
import json
import math
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from anomalib.pipelines.components.base import Job
from tqdm import tqdm

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.benchmark.factory import build_datamodule
from anomalib_mediclip.benchmark.isolation import run_isolated
from anomalib_mediclip.benchmark.mean_brightness import brightness
from anomalib_mediclip.benchmark.measurement import PACKAGES, measure
from anomalib_mediclip.benchmark.results import COLUMNS, JobKey, write_results
from anomalib_mediclip.versions import versions_in_words

LOG = "benchmark.log"


@dataclass(frozen=True)
class FewShotJob(Job):
    """A job; it keeps its result on disk as soon as it has one, and does not run when it finds one there.

    Args:
        model_name (str): Name of the model in tables.
        model (dict[str, Any] | None): ``class_path``, ``init_args``, ``trainer``; None for the trivial baseline.
        data_name (str): Name of the data set in tables.
        data (dict[str, Any]): ``class_path`` and ``init_args``.
        k_shot (int | None): Size of the support set; None for the trivial baseline, which has none.
        seed (int | None): Seed of support set and model; None for the trivial baseline.
        device (str): ``cpu`` or ``cuda``.
        folder (Path): Folder of the benchmark.
        position (int): Place among all jobs.
        with_examples (bool): Whether to keep a few anomaly maps for the report.
        data_hash (str): Hash of the files of the data set; see :mod:`anomalib_mediclip.benchmark.fingerprint`.
    """

    name = "few_shot_benchmark"

    model_name: str
    model: dict[str, Any] | None
    data_name: str
    data: dict[str, Any]
    k_shot: int | None
    seed: int | None
    device: str
    folder: Path
    position: int
    with_examples: bool = False
    data_hash: str = ""

    @property
    def title(self) -> str:
        """Name of the job in columns and messages."""
        return JobKey(self.data_name, self.model_name, self.k_shot, self.seed).column

    @property
    def record(self) -> Path:
        """File of the result, whose name changes with configuration and data: no result is taken for another's."""
        content = [self.model, self.data, self.k_shot, self.seed, self.with_examples, self.data_hash]
        settings = json.dumps(content, sort_keys=True)
        fingerprint = hashlib.sha256(settings.encode()).hexdigest()[:8]
        readable = re.sub(r"[^\w.-]+", "-", f"{self.data_name}-{self.title}")
        return self.folder / "jobs" / f"{readable}-{fingerprint}.json"

    @property
    def is_finished(self) -> bool:
        """Whether a run of this job has succeeded before, and has left both of its files."""
        try:
            row: dict[str, Any] = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return self.record.with_suffix(".npz").is_file() and not row.get("error")

    def run(self, task_id: int | None = None) -> tuple[int, Path]:
        """Run the job, unless it is finished; a failure is recorded, not raised.

        Returns:
            tuple[int, Path]: Position and file of the result.
        """
        if self.is_finished:
            return self.position, self.record
        start = time.perf_counter()
        row: dict[str, Any] = {
            "data": self.data_name,
            "k_shot": self.k_shot,
            "seed": self.seed,
            "model": self.model_name,
        }
        try:
            row |= run_isolated(self.measure, task_id or 0, log=self.folder / LOG)
        except Exception as error:  # one broken job must not stop the others
            row["error"] = " ".join(f"{type(error).__name__}: {error}".split())
        row = {**dict.fromkeys(COLUMNS), "versions": versions_in_words(PACKAGES), **row}
        try:
            self._write(row)
        except OSError as error:  # the disk is full: the job counts as not finished
            row["error"] = str(error)
        tqdm.write(f"{self.data_name}: {self.title}: {_summary(row)} ({time.perf_counter() - start:.0f} s)")
        sys.stdout.flush()
        return self.position, self.record

    def measure(self, gpu: int = 0) -> dict[str, Any]:
        """Run the job in this process, and write its scores.

        Args:
            gpu (int, optional): Number of the GPU, if there are any. Defaults to ``0``.

        Returns:
            dict[str, Any]: Columns of the table.
        """
        device = torch.device(f"cuda:{gpu}" if self.device == "cuda" else "cpu")
        datamodule = build_datamodule(self.data, self.k_shot, self.seed or 0)
        if self.model is None:
            predictions = brightness(datamodule)
            figures: dict[str, Any] = predictions.metrics()
        else:
            figures, predictions = measure(self.model, datamodule, self.seed or 0, device)
            figures["support_set_hash"] = datamodule.support_set_hash
            figures["support_set"] = [os.path.relpath(image, datamodule.root) for image in datamodule.support_set]
        self.record.parent.mkdir(parents=True, exist_ok=True)
        predictions.save(self.record.with_suffix(".npz"), datamodule.root, self.with_examples)
        return {**figures, "device": _describe(device)}

    def _write(self, row: dict[str, Any]) -> None:
        """Write the record at once or not at all: the process may be killed at any time."""
        self.record.parent.mkdir(parents=True, exist_ok=True)
        numbers = {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        write_whole(self.record, json.dumps({"title": self.title, **row, **numbers}, indent=1, allow_nan=False))

    @staticmethod
    def collect(results: list[tuple[int, Path]]) -> list[Path]:
        """Put the results, which may have come in any order, into that of the configuration."""
        return [record for _, record in sorted(results)]

    @staticmethod
    def save(results: list[Path]) -> None:
        """Write the table, the scores and the examples of the whole benchmark."""
        written = [record for record in results if record.is_file()]  # a full disk takes no record
        if written:
            write_results(written, written[0].parents[1])


def _describe(device: torch.device) -> str:
    """Return the name of the device of the job."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def _summary(row: dict[str, Any]) -> str:
    """Return the line that is printed when a job ends."""
    if row.get("error"):
        return f"FAILED, {row['error']}"
    shown = {"Image-AUROC": row.get("image_auroc"), "Pixel-AUROC": row.get("pixel_auroc")}
    return ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
