# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The run that a review belongs to, and whether a model made it."""

import json
import math
from pathlib import Path
from typing import Any

from anomalib_mediclip.io import hash_of_file
from anomalib_mediclip.prediction.review import Review
from anomalib_mediclip.prediction.run_report import REPORT


def report_of_run(review: Review, path: Path, folder: Path | None) -> dict[str, Any]:
    """Return the report of the run that was reviewed.

    Args:
        review (Review): Review.
        path (Path): File of the review.
        folder (Path | None): Folder of the run; None for that of the review.

    Returns:
        dict[str, Any]: Content of ``run.json``.

    Raises:
        FileNotFoundError: If there is no report.
        ValueError: If the report is damaged, or the folder is that of another run.
    """
    folder = folder or path.parent
    file = folder / REPORT
    if not file.is_file():
        msg = (
            f"There is no {REPORT} in {folder}, so nobody knows which model {path.name} reviews. "
            "Give the folder of the run that was reviewed as --run."
        )
        raise FileNotFoundError(msg)
    tables = [table for table in sorted(folder.glob("*.csv")) if table.resolve() != path.resolve()]
    if all(hash_of_file(table) != review.run for table in tables):
        msg = (
            f"{path} is a review of another run than that in {folder}: no table there has the SHA-256 {review.run}. "
            "Give the folder of its run as --run. If the table was changed since, predict and review again."
        )
        raise ValueError(msg)
    try:
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{file} cannot be read ({error}). Predict and review again."
        raise ValueError(msg) from error
    return report


def check_checkpoint(report: dict[str, Any], accepted: set[str], path: Path) -> None:
    """Refuse the report of a run of another model.

    Args:
        report (dict[str, Any]): Report of the run.
        accepted (set[str]): SHA-256 of the files that may have made it.
        path (Path): File of the model that is corrected, for the message.

    Raises:
        ValueError: If the run was made with another checkpoint, or with none that is known.
    """
    made_with = report.get("checkpoint") or {}
    if made_with.get("sha256") not in accepted:
        given = made_with.get("path", "a model that was in no file")
        msg = (
            f"The run that was reviewed was made with {given} (SHA-256 {made_with.get('sha256', 'unknown')}), which is "
            f"not {path}: its scores mean something else. Give that checkpoint, or predict with this one and review."
        )
        raise ValueError(msg)


def check_threshold(report: dict[str, Any], threshold: float, path: Path) -> None:
    """Refuse the report of a run of another model than an export: only its threshold tells, perhaps in half precision.

    Args:
        report (dict[str, Any]): Report of the run.
        threshold (float): Image threshold of the export, in raw scores.
        path (Path): File of the export, for the message.

    Raises:
        ValueError: If the run had another threshold.
    """
    reviewed = report.get("thresholds", {}).get("image_threshold")
    if reviewed is None or not math.isclose(reviewed, threshold, rel_tol=1e-3):
        msg = (
            f"The run that was reviewed has the image threshold {reviewed} in raw scores, and {path} has {threshold}: "
            "the review is that of another model. Give the export of the checkpoint that was reviewed."
        )
        raise ValueError(msg)
