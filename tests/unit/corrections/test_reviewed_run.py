# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A review counts for the run and the model that it was made of."""

import json
from pathlib import Path

import pytest

from anomalib_mediclip.corrections.reviewed_run import check_checkpoint, report_of_run
from anomalib_mediclip.io import hash_of_file
from anomalib_mediclip.prediction.review import Review, ReviewedImage

REPORT = {"checkpoint": {"path": "model.ckpt", "sha256": "a" * 64}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run."""
    (tmp_path / "predictions.csv").write_text("file,score,label,threshold,reason\n1.png,0.7,anomalous,0.5,\n")
    (tmp_path / "run.json").write_text(json.dumps(REPORT))
    return tmp_path


def review_of(run: Path) -> Review:
    return Review((ReviewedImage("1.png"),), 0.5, hash_of_file(run / "predictions.csv"))


def test_a_review_lies_beside_its_run_or_names_it(run: Path) -> None:
    assert report_of_run(review_of(run), run / "review.csv", None) == REPORT
    assert report_of_run(review_of(run), Path("elsewhere/review.csv"), run) == REPORT


def test_a_review_of_another_run_is_refused(run: Path) -> None:
    review = review_of(run)
    with (run / "predictions.csv").open("a") as table:
        table.write("2.png,0.1,normal,0.5,\n")
    with pytest.raises(ValueError, match=r"a review of another run than that in .*: no table there has the SHA-256"):
        report_of_run(review, run / "review.csv", None)


def test_a_review_without_its_run_is_refused(run: Path, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("downloads") / "review.csv"
    with pytest.raises(FileNotFoundError, match=r"no run\.json in .*downloads.* as --run"):
        report_of_run(review_of(run), elsewhere, None)


def test_a_damaged_report_is_named(run: Path) -> None:
    (run / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        report_of_run(review_of(run), run / "review.csv", None)


@pytest.mark.parametrize("report", [REPORT, {"checkpoint": None}])
def test_a_run_of_another_model_is_refused(report: dict) -> None:
    check_checkpoint(REPORT, {"a" * 64}, Path("model.ckpt"))
    with pytest.raises(ValueError, match=r"which is not new\.ckpt: its scores mean something else"):
        check_checkpoint(report, {"b" * 64}, Path("new.ckpt"))
