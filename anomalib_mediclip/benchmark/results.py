# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Results of a benchmark: written from the records of its jobs, and read again for the report."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anomalib_mediclip.atomic import written_beside

TRIVIAL = "mean brightness"  # name of the trivial baseline among the models
METRICS = {"image_auroc": "Image-AUROC", "pixel_auroc": "Pixel-AUROC", "aupro": "AUPRO", "image_aupr": "Image AUPR"}
PUBLISHED_COLUMNS = ("data", "k_shot", "model", "metric", "mean", "std")
NOTE = "note.txt"  # remark of the configuration for readers of the report
TEXT_COLUMNS = ("trained_on", "tested_on", "model", "support_set_hash", "device", "versions", "error")
COLUMNS = (
    "trained_on", "tested_on", "k_shot", "seed", "model", "image_auroc", "pixel_auroc", "aupro", "image_aupr", "steps",
    "fit_seconds", "test_seconds", "images_per_second", "latency_ms", "peak_memory_mb", "trainable_parameters",
    "support_set_hash", "shared_images", "device", "versions", "error",
)  # fmt: skip
DIGITS = {"fit_seconds": 2, "test_seconds": 2, "images_per_second": 2, "latency_ms": 2, "peak_memory_mb": 0}


@dataclass(frozen=True)
class JobKey:
    """Identity of a result: data sets, model, size of the support set and seed.

    Args:
        tested_on (str): Data set that the model is tested on.
        model (str): Name of the model.
        k_shot (int | None): Size of the support set; None for the trivial baseline, which has none.
        seed (int | None): Seed; None for the trivial baseline.
        trained_on (str | None, optional): Data set that the model is trained on. Defaults to ``None``: the same.

    Example:
        >>> JobKey("BUSI", "MediCLIP", 16, 0).column
        'MediCLIP k16 seed0'
        >>> JobKey("BUSI", "MediCLIP", 16, 0, trained_on="BrainMRI").column
        'MediCLIP k16 seed0 trained on BrainMRI'
        >>> JobKey("BUSI", "MediCLIP", 16, 0, trained_on="BrainMRI").task
        'BrainMRI / BUSI'
        >>> JobKey("BUSI", TRIVIAL, None, None).column
        'mean brightness'
    """

    tested_on: str
    model: str
    k_shot: int | None
    seed: int | None
    trained_on: str | None = None

    @property
    def is_transfer(self) -> bool:
        """Whether the model is tested on another data set than it was trained on."""
        return self.trained_on not in (None, "", self.tested_on)

    @property
    def column(self) -> str:
        """Name of the result in the table of scores of its test set, and in messages."""
        support = "" if self.seed is None else f" k{self.k_shot} seed{self.seed}"
        return f"{self.model}{support}" + (f" trained on {self.trained_on}" if self.is_transfer else "")

    @property
    def task(self) -> str:
        """Name of what the figures of a row compare: the data set, or ``trained on / tested on``."""
        return f"{self.trained_on} / {self.tested_on}" if self.is_transfer else self.tested_on

    @classmethod
    def of_row(cls, row: Any) -> "JobKey":
        """Return the key of a row of ``results.csv``.

        Args:
            row (Any): Row with ``trained_on``, ``tested_on``, ``model``, ``k_shot`` and ``seed`` as attributes.

        Returns:
            JobKey: Key.
        """
        k_shot, seed = (None if pd.isna(number) else int(number) for number in (row.k_shot, row.seed))
        return cls(row.tested_on, row.model, k_shot, seed, row.trained_on)


def write_results(records: list[Path], folder: Path) -> None:
    """Write ``results.csv``, and for every data set ``scores/<data>.csv`` and ``examples/<data>.npz``.

    Args:
        records (list[Path]): Files of the jobs' results, in the order of the table; scores lie beside them.
        folder (Path): Folder to write to.
    """
    rows = [json.loads(record.read_text(encoding="utf-8")) for record in records]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).round(DIGITS)
    whole = ["k_shot", "seed", "peak_memory_mb", "trainable_parameters", "steps", "shared_images"]
    table[whole] = table[whole].astype("Int64")  # a column with holes would become 4.0, 16.0
    _write_csv(table, folder / "results.csv")
    finished = [
        (row, _read_arrays(record.with_suffix(".npz")))
        for row, record in zip(rows, records, strict=True)
        if not row["error"]
    ]
    for data in dict.fromkeys(row["tested_on"] for row, _ in finished):
        jobs = [(row, arrays) for row, arrays in finished if row["tested_on"] == data]
        _write_scores(jobs, folder / "scores" / f"{data}.csv")
        _write_examples([job for job in jobs if "maps" in job[1]], folder / "examples" / f"{data}.npz")


def _write_scores(jobs: list[tuple[dict[str, Any], Any]], path: Path) -> None:
    """Write a row for every test image, and a column of unrounded float32 scores for every job.

    A job that was tested on fewer images has no score for the others.
    """
    columns = [
        pd.Series(arrays["scores"], [arrays["names"], arrays["labels"].astype(int)], name=row["title"])
        for row, arrays in jobs
    ]
    table = pd.concat(columns, axis="columns", sort=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_csv(table.rename_axis(["image", "label"]).reset_index(), path)


def _write_examples(jobs: list[tuple[dict[str, Any], Any]], path: Path) -> None:
    """Write the images to show, with the anomaly map of every model, and its reconstruction if it makes one."""
    if not jobs:
        return
    row, first = jobs[0]
    chosen = first["examples"]
    names = first["names"][chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as unfinished:
        np.savez_compressed(
            unfinished,
            names=names,
            labels=first["labels"][chosen].astype(int),
            images=first["images"],
            masks=first["masks"],
            k_shot=row["k_shot"],
            seed=row["seed"],
            # a model that was tested on other images may show others
            **{
                f"{kind}:{row['model']}": arrays[f"{kind}s"]
                for row, arrays in jobs
                for kind in ("map", "reconstruction")
                if f"{kind}s" in arrays and np.array_equal(arrays["names"][arrays["examples"]], names)
            },
        )


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all."""
    with written_beside(path) as unfinished:
        table.to_csv(unfinished, index=False)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file and close it: a benchmark has more jobs than a process may have open files."""
    with np.load(path) as arrays:
        return dict(arrays)


@dataclass(frozen=True)
class Results:
    """Results of a benchmark.

    Attributes:
        rows (pd.DataFrame): A row for every result, in the order of the configuration, as in ``results.csv``. The
            column ``data`` names what is compared: the data set, or ``trained on / tested on`` where these differ
            (:attr:`JobKey.task`). The trivial baseline of a test set has a row for every task with that test set.
        scores (dict[str, pd.DataFrame]): For every task with both classes among its test images, a row for every
            test image: ``image``, ``label`` and a column of raw scores for every finished job.
        examples (dict[str, dict[str, np.ndarray]]): For every data set with examples, the arrays of its file.
        note (str): Remark of the configuration for readers of the report.
    """

    rows: pd.DataFrame
    scores: dict[str, pd.DataFrame]
    examples: dict[str, dict[str, np.ndarray]]
    note: str = ""

    @property
    def data_sets(self) -> list[str]:
        """Names of the data sets, or of pairs of them, in the order of the configuration."""
        return list(dict.fromkeys(self.rows["data"]))

    @property
    def models(self) -> list[str]:
        """Names of the models without the trivial baseline, in the order of the configuration."""
        return [model for model in dict.fromkeys(self.rows["model"]) if model != TRIVIAL]

    @property
    def k_shots(self) -> list[int]:
        """Sizes of the support sets, ascending."""
        return sorted(int(k_shot) for k_shot in self.rows["k_shot"].dropna().unique())

    def largest_k_shot(self, data: str) -> int:
        """Return the largest size of the support set on a data set.

        Args:
            data (str): Data set, or pair of them.
        """
        sizes = self.rows.loc[self.rows["data"] == data, "k_shot"].dropna()
        return int(sizes.max()) if len(sizes) else 0

    @property
    def has_transfer(self) -> bool:
        """Whether a model was tested on another data set than it was trained on."""
        return any(JobKey.of_row(row).is_transfer for row in iterate(self.rows))

    def columns(self, data: str, model: str, k_shot: int) -> dict[int, str]:
        """Find a model's scores.

        Args:
            data (str): Data set, or pair of them.
            model (str): Model.
            k_shot (int): Size of the support set.

        Returns:
            dict[int, str]: Column of ``scores[data]`` by seed; a job that failed has none.
        """
        rows = self.rows
        chosen = (rows["data"] == data) & (rows["model"] == model) & (rows["k_shot"] == k_shot) & (rows["error"] == "")
        jobs = rows[chosen.fillna(False)]
        names = {int(row.seed): JobKey.of_row(row).column for row in iterate(jobs)}
        return {seed: name for seed, name in names.items() if data in self.scores and name in self.scores[data]}

    def tested_images(self, data: str, model: str, k_shot: int) -> tuple[int, int]:
        """Count the images that a model was tested on.

        Args:
            data (str): Data set.
            model (str): Model.
            k_shot (int): Size of the support set.

        Returns:
            tuple[int, int]: Fewest images with a score, over seeds, and images that any job of the data set was tested
            on; equal where there are no scores.
        """
        columns = list(self.columns(data, model, k_shot).values())
        if not columns:
            return 0, 0
        table = self.scores[data]
        return int(table[columns].notna().sum().min()), len(table)


def read_results(folder: Path) -> Results:
    """Read the folder of a benchmark.

    Args:
        folder (Path): Folder with ``results.csv``, ``scores/<data>.csv`` and perhaps ``examples/<data>.npz`` and
            ``note.txt``.

    Returns:
        Results: Results.

    Raises:
        FileNotFoundError: If there is no ``results.csv``.
        ValueError: If it has no rows, or lacks columns.
    """
    path = folder / "results.csv"
    if not path.is_file():
        msg = f"{path} does not exist: give the folder of a benchmark, or run the benchmark first."
        raise FileNotFoundError(msg)
    types: dict[str, str] = {"k_shot": "Int64", "seed": "Int64", **dict.fromkeys(TEXT_COLUMNS, "str")}
    rows = _read_csv(path, COLUMNS, types)
    rows[list(TEXT_COLUMNS)] = rows[list(TEXT_COLUMNS)].fillna("")
    rows = _by_task(rows)
    note = folder / NOTE
    tested: dict[str, str] = dict(zip(rows["data"], rows["tested_on"], strict=True))
    scores = {name: table for name in set(tested.values()) if (table := _read_scores(folder, name)) is not None}
    return Results(
        rows=rows,
        note=note.read_text(encoding="utf-8").strip() if note.is_file() else "",
        scores={
            task: _scores_of(scores[data], rows[rows["data"] == task])
            for task, data in tested.items()
            if data in scores
        },
        examples={
            data: _read_arrays(path)
            for task, data in tested.items()
            if task == data and (path := folder / "examples" / f"{data}.npz").is_file()
        },
    )


def _by_task(rows: pd.DataFrame) -> pd.DataFrame:
    """Name what each row compares, and give every task the trivial baseline of its test set."""
    rows = rows.assign(data=[JobKey.of_row(row).task for row in iterate(rows)])
    trivial = rows[rows["model"] == TRIVIAL]
    missing = [
        trivial[trivial["tested_on"] == tested_on].assign(data=task)
        for task, tested_on in rows.drop_duplicates("data")[["data", "tested_on"]].itertuples(index=False)
        if task != tested_on
    ]
    trained = rows[(rows["model"] != TRIVIAL) | rows["data"].isin(rows.loc[rows["model"] != TRIVIAL, "data"])]
    return pd.concat([trained, *missing], ignore_index=True)


def _read_scores(folder: Path, data: str) -> pd.DataFrame | None:
    """Read the scores of a test set, None if there are none, or only images of one class."""
    path = folder / "scores" / f"{data}.csv"
    table = pd.read_csv(path) if path.is_file() else None
    return table if table is not None and table["label"].nunique() == 2 else None


def _scores_of(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of the rows of one task."""
    columns = [JobKey.of_row(row).column for row in iterate(rows)]
    return table[["image", "label", *(column for column in table if column in columns)]]


def read_published(paths: Sequence[Path]) -> pd.DataFrame:
    """Read published figures.

    Args:
        paths (Sequence[Path]): CSV files with the columns ``data,k_shot,model,metric,mean,std``, in percent; the
            ``tables/<metric>.csv`` of another report will do.

    Returns:
        pd.DataFrame: All rows with a mean, of these columns; ``model`` in lower case.

    Raises:
        ValueError: If a file has no rows, or lacks columns.
    """
    empty = pd.DataFrame(columns=list(PUBLISHED_COLUMNS)).astype({"k_shot": "Int64", "mean": float, "std": float})
    tables = [_read_csv(path, PUBLISHED_COLUMNS, {"k_shot": "Int64"}) for path in paths]
    table = (pd.concat(tables) if tables else empty)[list(PUBLISHED_COLUMNS)].dropna(subset="mean")
    return table.assign(model=table["model"].astype("str").str.lower())


def iterate(table: pd.DataFrame) -> Iterator[Any]:
    """Iterate over rows whose columns are attributes, of whatever types they have.

    Args:
        table (pd.DataFrame): Table.

    Returns:
        Iterator[Any]: Rows.
    """
    return table.itertuples()


def _read_csv(path: Path, columns: Sequence[str], types: dict[str, str]) -> pd.DataFrame:
    """Read a table that must have rows and these columns."""
    try:
        table = pd.read_csv(path, dtype=types)
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    missing = [column for column in columns if column not in table]
    if table.empty:
        msg = f"{path} has no rows: run the benchmark again, or give another file."
        raise ValueError(msg)
    if missing:
        msg = f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(columns)}."
        raise ValueError(msg)
    return table
