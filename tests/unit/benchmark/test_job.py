# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A job of the benchmark: what it keeps, and when it runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomalib_mediclip.benchmark.job import FewShotJob


@pytest.fixture
def job(sample_data: Path, tmp_path: Path) -> FewShotJob:
    return FewShotJob(
        model_name="SimpleNet",
        model={
            "class_path": "SimpleNet",
            "init_args": {"encoder": "timm/resnet18", "weights": None, "image_size": [64, 64], "noise": 0.5},
            "trainer": {"max_epochs": 2},
        },
        trained_on="sample",
        data={"class_path": "MedicalFolder", "init_args": {"root": str(sample_data)}},
        k_shot=4,
        seed=1,
        device="cpu",
        folder=tmp_path,
        position=3,
        tests={"sample": {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data)}}},
    )


def record_of(job: FewShotJob) -> Path:
    """The file of the result of a job with one test set."""
    [record] = job.records.values()
    return record


@pytest.mark.slow
def test_record_holds_figures_costs_and_the_support_set(job: FewShotJob, capsys: pytest.CaptureFixture[str]) -> None:
    position, [record] = job.run()
    assert (position, record) == (3, record_of(job))
    row = json.loads(record.read_text())
    assert row["error"] is None
    assert row["steps"] == 2
    assert 0 <= row["image_auroc"] <= 1
    assert 0 <= row["pixel_auroc"] <= 1
    assert min(row["fit_seconds"], row["test_seconds"], row["latency_ms"]) > 0
    assert row["peak_memory_mb"] > 100
    # adaptor and discriminator: w x w, w x 1024 with bias, batch normalisation, 1024; w = 128 + 256
    assert row["trainable_parameters"] == 384**2 + 384 * 1024 + 1024 + 2 * 1024 + 1024
    assert len(row["support_set"]) == 4
    assert len(row["support_set_hash"]) == 64
    assert row["shared_images"] == 0
    assert "torch" in row["versions"]
    assert len(np.load(record.with_suffix(".npz"))["scores"]) == 40
    assert "sample: SimpleNet k4 seed1: Image-AUROC" in capsys.readouterr().out


def test_finished_job_does_not_run_again(job: FewShotJob) -> None:
    job.run()
    before = record_of(job).stat().st_mtime_ns
    assert job.is_finished
    job.run()
    assert record_of(job).stat().st_mtime_ns == before


def test_failure_is_recorded_and_tried_again(job: FewShotJob, capsys: pytest.CaptureFixture[str]) -> None:
    broken = replace(job, model={"class_path": "SimpelNet"})
    broken.run()
    row = json.loads(record_of(broken).read_text())
    assert "no AnomalibModule named 'SimpelNet'" in row["error"]
    assert row["image_auroc"] is None
    assert not broken.is_finished
    assert "FAILED" in capsys.readouterr().out
    before = record_of(broken).stat().st_mtime_ns
    broken.run()
    assert record_of(broken).stat().st_mtime_ns > before


def test_any_change_of_the_configuration_makes_another_job(job: FewShotJob) -> None:
    model = {**job.model, "trainer": {"max_epochs": 3}}
    data = {**job.data, "init_args": {**job.data["init_args"], "normal_dir": "train/other"}}
    changed = [replace(job, model=model), replace(job, data=data), replace(job, k_shot=8), replace(job, seed=2)]
    assert len({record_of(job), *(record_of(other) for other in changed)}) == 5
    assert record_of(replace(job, position=9)) == record_of(job)


def test_results_are_put_in_order() -> None:
    assert FewShotJob.collect([(2, [Path("d")]), (0, [Path("a"), Path("b")]), (1, [Path("c")])]) == [
        Path(name) for name in "abcd"
    ]


def test_a_damaged_record_or_one_without_scores_counts_as_not_finished(job: FewShotJob) -> None:
    record_of(job).parent.mkdir(parents=True)
    scores = record_of(job).with_suffix(".npz")
    scores.write_bytes(b"")
    record_of(job).write_text('{"error": null')
    assert not job.is_finished
    record_of(job).write_text('{"error": null}')
    assert job.is_finished
    scores.unlink()
    assert not job.is_finished


def test_other_data_make_another_job(job: FewShotJob) -> None:
    assert record_of(replace(job, data_hash="a")) != record_of(replace(job, data_hash="b"))


def test_a_full_disk_leaves_no_record(job: FewShotJob, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import errno

    from anomalib_mediclip import atomic

    def write(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.Path, "write_bytes", write)
    broken = replace(job, model={"class_path": "SimpelNet"})
    broken.run()
    assert not list(job.folder.rglob("*.json"))
    assert "could not be written (No space left on device)" in capsys.readouterr().out
    FewShotJob.save([record_of(broken)])


def test_a_value_that_is_no_number_is_null(job: FewShotJob) -> None:
    job._write("sample", {"image_auroc": float("nan"), "error": None})
    assert json.loads(record_of(job).read_text(), parse_constant=pytest.fail)["image_auroc"] is None
