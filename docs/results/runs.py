# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What the scripts of this folder share: the data sets, and CSV files that runs are added to."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule

from anomalib_mediclip import BUSI, BrainMRI, MedicalFolder

Run = tuple[str, ...]


def datamodules(root: Path, k_shot: int, seed: int) -> dict[str, AnomalibDataModule]:
    """Return the data sets below a folder by name."""
    common: dict[str, Any] = {"k_shot": k_shot, "seed": seed}
    return {
        "BUSI": BUSI(root / "Dataset_BUSI_with_GT", **common),
        "BrainMRI": BrainMRI(root / "brain_tumor_dataset", **common),
        "chest_nih": MedicalFolder(root / "chest_nih", mask_dir="boxes/abnormal", name="chest_nih", **common),
    }


def add_missing(
    file: Path, columns: Sequence[str], runs: Iterable[tuple[Run, Callable[[], Iterable[Sequence[str]]]]]
) -> None:
    """Do the runs that a CSV file does not hold yet, and write each to it as soon as it is done.

    Args:
        file (Path): File, made if it is missing.
        columns (Sequence[str]): Its columns, those that tell runs apart first.
        runs (Iterable[tuple[Run, Callable]]): The first columns of each run, and the function that does it and returns
            the remaining columns of its rows.
    """
    held: list[list[str]] = []
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as lines:
            held = list(csv.reader(lines))
    with file.open("a", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        if not held:
            writer.writerow(columns)
        for run, do in runs:
            if list(run) not in (row[: len(run)] for row in held):
                writer.writerows([*run, *row] for row in do())
                lines.flush()
