# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The tables of a parity report."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from anomalib_mediclip.versions import versions_in_words

PACKAGES = ("anomalib-mediclip", "anomalib", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
# column of the CSV -> heading and number format of the page
COLUMNS = {
    "format": ("format", ""),
    "precision": ("computes in", ""),
    "size_mb": ("MB", ".1f"),
    "latency_ms": ("ms, batch 1", ".1f"),
    "throughput": ("images/s, batch 8", ".1f"),
    "map_max": ("map, max", ".1e"),
    "map_mean": ("map, mean", ".1e"),
    "score_max": ("score, max", ".1e"),
    "score_mean": ("score, mean", ".1e"),
    "rank_correlation": ("rank correlation", ".4f"),
    "auroc": ("AUROC", ".4f"),
    "auroc_change": ("change", "+.4f"),
    "flipped_labels": ("labels flipped", ".2%"),
    "original_score_max": ("score, max, original size", ".1e"),
    "error": ("error", ""),
}
EXPLANATION = """\
Differences are those to the checkpoint in torch, float32, with the pre-processing of training; scores and maps are
calibrated, in [0, 1]. Images were resized beforehand to the model's input size; for "original size" alone they were
given as they are, so that it includes what the resizing inside the exported graph does otherwise. MB are 10^6 bytes."""


def write_tables(rows: Sequence[dict[str, Any]], title: str, folder: Path) -> Path:
    """Write ``parity.csv`` with every digit and ``parity.md`` for reading.

    Args:
        rows (Sequence[dict[str, Any]]): Rows with any of the keys of ``COLUMNS``.
        title (str): What was measured.
        folder (Path): Folder to write to.

    Returns:
        Path: ``parity.md``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).reindex(columns=list(COLUMNS)).to_csv(folder / "parity.csv", index=False)
    shown = [name for name in COLUMNS if any(_cell(row, name) for row in rows)]
    lines = [[COLUMNS[name][0] for name in shown], ["---" if not COLUMNS[name][1] else "---:" for name in shown]]
    lines += [[_cell(row, name) for name in shown] for row in rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    machine = f"CPU with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    path = folder / "parity.md"
    path.write_text(
        f"# Parity report\n\n{title}. {machine}. {versions_in_words(PACKAGES)}.\n\n{table}\n\n{EXPLANATION}\n",
        encoding="utf-8",
    )
    return path


def _cell(row: dict[str, Any], name: str) -> str:
    """Return a cell of the page, empty where nothing was measured."""
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return format(value, COLUMNS[name][1]).replace("|", "\\|")
