# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The tables of the whole archive, joined from the parts of its shards without reading them into memory."""

import csv
import heapq
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from anomalib_mediclip.archive.plan import Plan
from anomalib_mediclip.atomic import written_beside
from anomalib_mediclip.prediction.table import COLUMNS

TABLE = "predictions.csv"
TYPES = {
    "file": pa.string(),
    "score": pa.float64(),
    "label": pa.string(),
    "threshold": pa.float64(),
    "reason": pa.string(),
}

Top = int | Literal["anomalous"]


def join_parts(plan: Plan) -> Path:
    """Write ``predictions.csv`` and ``predictions.parquet``, in the order of the manifest.

    Args:
        plan (Plan): Plan; shards without predictions are left out.

    Returns:
        Path: The CSV file.

    Raises:
        OSError: If they cannot be written; the parts are kept.
    """
    table = plan.output / TABLE
    with written_beside(table) as unfinished, unfinished.open("wb") as file:
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(COLUMNS)
        file.write(header.getvalue().encode())
        for shard in range(plan.shards):
            part = plan.part(shard)
            if part.exists():
                with part.open("rb") as rows:
                    shutil.copyfileobj(rows, file)
    _write_parquet(table)
    return table


def _write_parquet(table: Path) -> None:
    """Write a CSV table as Parquet, block by block."""
    blocks = pa_csv.open_csv(
        table,
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=TYPES),
    )
    schema = pa.schema(list(TYPES.items()))
    with written_beside(table.with_suffix(".parquet")) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        for block in blocks:
            writer.write_batch(block)


def read_table(table: Path) -> Iterator[dict[str, str]]:
    """Read a table row by row.

    Args:
        table (Path): CSV file.

    Yields:
        dict[str, str]: Row.
    """
    with table.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def highest(table: Path, top: Top) -> list[dict[str, str]]:
    """Choose the images whose pictures are drawn.

    Args:
        table (Path): CSV file.
        top (Top): How many, those with the highest scores; or ``anomalous``, all above the threshold.

    Returns:
        list[dict[str, str]]: Rows, the highest score first.
    """
    scored = (row for row in read_table(table) if row["score"])
    if top == "anomalous":
        return sorted((row for row in scored if row["label"] == "anomalous"), key=_score, reverse=True)
    return heapq.nlargest(top, scored, key=_score)


def _score(row: dict[str, str]) -> float:
    """Return the score of a row as a number."""
    return float(row["score"])
