# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The results of a whole benchmark, gathered from those of its jobs: table, scores and examples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = (
    "data", "k_shot", "seed", "model", "image_auroc", "pixel_auroc", "aupro", "image_aupr", "epochs",
    "fit_seconds", "test_seconds", "latency_ms", "peak_memory_mb", "trainable_parameters", "support_set_hash",
    "device", "versions", "error",
)  # fmt: skip
DIGITS = {"fit_seconds": 2, "test_seconds": 2, "latency_ms": 2, "peak_memory_mb": 0}


def write_results(records: list[Path], folder: Path) -> None:
    """Write ``results.csv``, and for every data set ``scores/<data>.csv`` and ``examples/<data>.npz``.

    Args:
        records (list[Path]): Files of the jobs' results, in the order of the table; scores lie beside them.
        folder (Path): Folder to write to.
    """
    rows = [json.loads(record.read_text(encoding="utf-8")) for record in records]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).round(DIGITS)
    whole = ["k_shot", "seed", "peak_memory_mb", "trainable_parameters", "epochs"]
    table[whole] = table[whole].astype("Int64")  # a column with holes would become 4.0, 16.0
    table.to_csv(folder / "results.csv", index=False)
    finished = [
        (row, np.load(record.with_suffix(".npz")))
        for row, record in zip(rows, records, strict=True)
        if not row["error"]
    ]
    for data in dict.fromkeys(row["data"] for row, _ in finished):
        jobs = [(row, arrays) for row, arrays in finished if row["data"] == data]
        _write_scores(jobs, folder / "scores" / f"{data}.csv")
        _write_examples([job for job in jobs if "maps" in job[1]], folder / "examples" / f"{data}.npz")


def _write_scores(jobs: list[tuple[dict[str, Any], Any]], path: Path) -> None:
    """Write a row for every test image, and a column for every job, of the very float32 values."""
    first = jobs[0][1]
    columns = {"image": first["names"], "label": first["labels"].astype(int)}
    columns |= {row["title"]: arrays["scores"] for row, arrays in jobs}
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)


def _write_examples(jobs: list[tuple[dict[str, Any], Any]], path: Path) -> None:
    """Write the images to show, with the anomaly map of every model."""
    if not jobs:
        return
    row, first = jobs[0]
    chosen = first["examples"]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        names=first["names"][chosen],
        labels=first["labels"][chosen].astype(int),
        images=first["images"],
        masks=first["masks"],
        k_shot=row["k_shot"],
        seed=row["seed"],
        **{f"map:{row['model']}": arrays["maps"] for row, arrays in jobs},
    )
