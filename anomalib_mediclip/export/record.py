# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What is remembered of a training, in its checkpoint and beside it, as plain data."""

import hashlib
import json
from pathlib import Path
from typing import Any


def metrics_file(checkpoint: Path | str) -> Path:
    """Return where the test metrics of a checkpoint are kept.

    Args:
        checkpoint (Path | str): Checkpoint.

    Returns:
        Path: ``<name>.metrics.json`` beside it.
    """
    return Path(checkpoint).with_suffix(".metrics.json")


def write_metrics(checkpoint: Path | str, metrics: dict[str, float]) -> None:
    """Keep the test metrics of a checkpoint beside it: they are known only after it was written.

    Args:
        checkpoint (Path | str): Checkpoint.
        metrics (dict[str, float]): Metrics by name.
    """
    content = {"checkpoint": _digest(Path(checkpoint)), "metrics": metrics}
    metrics_file(checkpoint).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_metrics(checkpoint: Path | str) -> dict[str, float]:
    """Return what :func:`write_metrics` kept of this very checkpoint.

    Args:
        checkpoint (Path | str): Checkpoint.

    Returns:
        dict[str, float]: Metrics by name; empty when there are none, or those of another checkpoint.
    """
    file = metrics_file(checkpoint)
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content["metrics"] if content["checkpoint"] == _digest(Path(checkpoint)) else {}


def _digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
