# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""One job of the benchmark: a model, a data set to train on, a size of the support set and a seed."""

import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from anomalib_mediclip.benchmark.raw_predictions import RawPredictions
from anomalib_mediclip.benchmark.results import COLUMNS, JobKey, write_results
from anomalib_mediclip.data import FewShotDataModule
from anomalib_mediclip.data.duplicates import shared_images
from anomalib_mediclip.versions import versions_in_words

LOG = "benchmark.log"


@dataclass(frozen=True)
class FewShotJob(Job):
    """A job; it keeps its result on disk as soon as it has one, and does not run when it finds one there.

    Args:
        model_name (str): Name of the model in tables.
        model (dict[str, Any] | None): ``class_path``, ``init_args``, ``trainer``; None for the trivial baseline.
        trained_on (str): Name of the data set to train on.
        data (dict[str, Any]): Its ``class_path`` and ``init_args``.
        k_shot (int | None): Size of the support set; None for the trivial baseline, which has none.
        seed (int | None): Seed of support set and model; None for the trivial baseline.
        device (str): ``cpu`` or ``cuda``.
        folder (Path): Folder of the benchmark.
        position (int): Place among all jobs.
        tests (dict[str, dict[str, Any]]): ``class_path`` and ``init_args`` of the data sets to test on, by name. The
            training is used for all of them.
        takes_all (bool): Whether the support set is the whole training pool, of ``k_shot`` images.
        with_examples (bool): Whether to keep a few anomaly maps for the report, of the data set trained on.
        data_hash (str): Hash of the files of the data sets; see :mod:`anomalib_mediclip.benchmark.fingerprint`.
    """

    name = "few_shot_benchmark"

    model_name: str
    model: dict[str, Any] | None
    trained_on: str
    data: dict[str, Any]
    k_shot: int | None
    seed: int | None
    device: str
    folder: Path
    position: int
    tests: dict[str, dict[str, Any]]
    takes_all: bool = False
    with_examples: bool = False
    data_hash: str = ""

    def key(self, tested_on: str) -> JobKey:
        """Return the identity of a result."""
        return JobKey(tested_on, self.model_name, self.k_shot, self.seed, self.trained_on)

    @property
    def title(self) -> str:
        """Name of the job in messages: what it is trained on, and what it is tested on if that is something else."""
        tested = f" / {', '.join(self.tests)}" if list(self.tests) != [self.trained_on] else ""
        return f"{self.trained_on}{tested}: {JobKey(self.trained_on, self.model_name, self.k_shot, self.seed).column}"

    @property
    def records(self) -> dict[str, Path]:
        """Files of the results by test set; their names change with configuration and data."""
        content = [self.model, self.data, self.k_shot, self.takes_all, self.seed, self.with_examples, self.data_hash]
        settings = json.dumps(content, sort_keys=True)
        files = {}
        for name, test in self.tests.items():
            fingerprint = hashlib.sha256(f"{settings}{json.dumps(test, sort_keys=True)}".encode()).hexdigest()[:8]
            readable = re.sub(r"[^\w.-]+", "-", f"{name}-{self.key(name).column}")
            files[name] = self.folder / "jobs" / f"{readable}-{fingerprint}.json"
        return files

    @property
    def is_finished(self) -> bool:
        """Whether a run of this job has succeeded before, and has left all of its files."""
        return all(_has_succeeded(record) for record in self.records.values())

    def run(self, task_id: int | None = None) -> tuple[int, list[Path]]:
        """Run the job, unless it is finished; a failure is recorded, not raised.

        Returns:
            tuple[int, list[Path]]: Position, and the files of the results.
        """
        if not self.is_finished:
            for line in self.record_results(task_id or 0):
                tqdm.write(line)
            sys.stdout.flush()
        return self.position, list(self.records.values())

    def record_results(self, gpu: int = 0) -> list[str]:
        """Run the job in a process of its own, and write what came of it; a failure is recorded, not raised.

        Args:
            gpu (int, optional): Number of the GPU, if there are any. Defaults to ``0``.

        Returns:
            list[str]: A line for each of its results.
        """
        start = time.perf_counter()
        try:
            figures = run_isolated(self.measure, gpu, log=self.folder / LOG)
        except Exception as error:  # one broken job must not stop the others
            return self.record_failure(error)
        return self._record(figures, f" ({time.perf_counter() - start:.0f} s)")

    def record_failure(self, error: BaseException) -> list[str]:
        """Write into the results that the job has failed, unless it is finished.

        Args:
            error (BaseException): Why.

        Returns:
            list[str]: A line for each of its results.
        """
        if self.is_finished:  # its process died after it had written them
            return []
        failure = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        return self._record(dict.fromkeys(self.tests, failure))

    def _record(self, figures: Mapping[str, Mapping[str, Any]], remark: str = "") -> list[str]:
        """Write the results of all test sets, and return a line for each."""
        lines = []
        for tested_on, measured in figures.items():
            row = self._row(tested_on) | dict(measured)
            try:
                self._write(tested_on, row)
            except OSError as error:  # the disk is full: the job counts as not finished
                row["error"] = str(error)
            lines.append(f"{self._title(tested_on)}: {_summary(row)}{remark}")
        return lines

    def _title(self, tested_on: str) -> str:
        """Return the name of one result in messages."""
        key = self.key(tested_on)
        return f"{key.task}: {replace(key, trained_on=None).column}"

    def _row(self, tested_on: str) -> dict[str, Any]:
        """Return the row of a result of which nothing is known yet."""
        identity = {
            "trained_on": self.trained_on,
            "tested_on": tested_on,
            "k_shot": self.k_shot,
            "seed": self.seed,
            "model": self.model_name,
        }
        return {**dict.fromkeys(COLUMNS), "versions": versions_in_words(PACKAGES), **identity}

    def measure(self, gpu: int = 0) -> dict[str, dict[str, Any]]:
        """Run the job in this process, and write its scores.

        Args:
            gpu (int, optional): Number of the GPU, if there are any. Defaults to ``0``.

        Returns:
            dict[str, dict[str, Any]]: Columns of the table for every test set.
        """
        device = torch.device(f"cuda:{gpu}" if self.device == "cuda" else "cpu")
        seed = self.seed or 0
        datamodule = build_datamodule(self.data, None if self.takes_all else self.k_shot, seed)
        tests = {
            name: datamodule if name == self.trained_on else build_datamodule(test, 1, seed)
            for name, test in self.tests.items()
        }
        if self.model is None:
            measured = {name: brightness(test) for name, test in tests.items()}
            results = {name: (predictions.metrics(), predictions) for name, predictions in measured.items()}
        else:
            results = measure(self.model, datamodule, seed, device, tests)
        rows = {}
        for name, (figures, predictions) in results.items():
            record = self.records[name]
            record.parent.mkdir(parents=True, exist_ok=True)
            examples = self.with_examples and name == self.trained_on
            predictions.save(record.with_suffix(".npz"), tests[name].root, examples)
            trained = {} if self.model is None else _describe_support(datamodule, predictions)
            rows[name] = {**figures, **trained, "device": _describe(device)}
        return rows

    def _write(self, tested_on: str, row: dict[str, Any]) -> None:
        """Write the record at once or not at all: the process may be killed at any time."""
        record = self.records[tested_on]
        record.parent.mkdir(parents=True, exist_ok=True)
        numbers = {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        content = {"title": self.key(tested_on).column, **row, **numbers}
        write_whole(record, json.dumps(content, indent=1, allow_nan=False))

    @staticmethod
    def collect(results: list[tuple[int, list[Path]]]) -> list[Path]:
        """Put the results, which may have come in any order, into that of the configuration."""
        return [record for _, records in sorted(results) for record in records]

    @staticmethod
    def save(results: list[Path]) -> None:
        """Write the table, the scores and the examples of the whole benchmark."""
        written = [record for record in results if record.is_file()]  # a full disk takes no record
        if written:
            write_results(written, written[0].parents[1])


def _has_succeeded(record: Path) -> bool:
    """Tell whether a file holds a result without error, and its scores lie beside it."""
    try:
        row: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record.with_suffix(".npz").is_file() and not row.get("error")


def _describe_support(datamodule: FewShotDataModule, predictions: RawPredictions) -> dict[str, Any]:
    """Return what a row says of the support set, and how many of its images were tested."""
    support = datamodule.support_set
    return {
        "support_set_hash": datamodule.support_set_hash,
        "support_set": [os.path.relpath(image, datamodule.root) for image in support],
        "shared_images": len(shared_images(support, [Path(path) for path in predictions.paths])),
    }


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
