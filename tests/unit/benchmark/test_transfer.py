# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Models that are tested on other data sets than they were trained on: jobs, files and report."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.benchmark.configuration import BenchmarkConfiguration, ByName
from anomalib_mediclip.benchmark.job import FewShotJob
from anomalib_mediclip.benchmark.pipeline import FewShotJobGenerator
from anomalib_mediclip.benchmark.report import write_report
from anomalib_mediclip.benchmark.results import TRIVIAL, JobKey, read_results, write_results

TINY = {
    "class_path": "MediCLIP",
    "init_args": {
        "encoder": "timm/resnet18",
        "weights": None,
        "image_size": [64, 64],
        "layers": [3, 4],
        "prompt": "prototype",
        "views": 1,
    },
    "trainer": {"max_epochs": 1},
}


def configuration(sample_data: Path, folder: Path, **changes) -> BenchmarkConfiguration:
    data = {
        name: {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data), "name": name}}
        for name in ("one", "two", "three")
    }
    options = {"models": ByName({"A": TINY, "B": TINY}), "data": ByName(data), "k_shot": [4], "seeds": [0, 1]}
    return BenchmarkConfiguration(**{**options, "output": folder, **changes})


def jobs_of(plan: BenchmarkConfiguration) -> list[FewShotJob]:
    return FewShotJobGenerator(plan).all_jobs()


def test_each_model_is_tested_where_it_was_trained_unless_the_file_says_more(sample_data: Path, tmp_path: Path) -> None:
    jobs = jobs_of(configuration(sample_data, tmp_path))
    assert len(jobs) == 3 * (2 * 2 + 1)
    assert all(list(job.tests) == [job.trained_on] for job in jobs)
    assert [job.position for job in jobs] == list(range(len(jobs)))


def test_a_training_is_one_job_with_all_its_tests(sample_data: Path, tmp_path: Path) -> None:
    plan = configuration(sample_data, tmp_path, train_on=["one", "two"], test_on=["two", "three"])
    jobs = jobs_of(plan)
    trained = [job for job in jobs if job.model is not None]
    assert [(job.trained_on, job.model_name, job.seed) for job in trained] == [
        (data, model, seed) for data in ("one", "two") for model in "AB" for seed in (0, 1)
    ]
    assert all(list(job.tests) == ["two", "three"] for job in trained)
    assert sorted(job.trained_on for job in jobs if job.model is None) == ["three", "two"]  # one wherever it is tested
    assert len({path for job in jobs for path in job.records.values()}) == 8 * 2 + 2


def test_all_is_every_normal_training_image(sample_data: Path, tmp_path: Path) -> None:
    jobs = [job for job in jobs_of(configuration(sample_data, tmp_path, k_shot=[4, "all"])) if job.model]
    assert {(job.k_shot, job.takes_all) for job in jobs} == {(4, False), (16, True)}
    assert {job.k_shot for job in jobs if job.with_examples} == {16}


@pytest.mark.slow
def test_a_model_is_trained_once_and_tested_on_each_set(
    sample_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = configuration(sample_data, tmp_path, train_on=["one"], test_on=["one", "two"], seeds=[3])
    job = next(job for job in jobs_of(plan) if job.model)
    assert not job.is_finished
    _, records = job.run()
    own, other = (json.loads(record.read_text()) for record in records)
    assert (own["trained_on"], own["tested_on"], other["trained_on"], other["tested_on"]) == (
        "one",
        "one",
        "one",
        "two",
    )
    assert own["fit_seconds"] == other["fit_seconds"]  # of the same training
    assert own["image_auroc"] == other["image_auroc"]  # the same images under two names
    assert own["support_set_hash"] == other["support_set_hash"]
    assert job.is_finished
    printed = capsys.readouterr().out
    assert "one: A k4 seed3: Image-AUROC" in printed
    assert "one / two: A k4 seed3: Image-AUROC" in printed
    records[1].unlink()
    assert not job.is_finished


def write_matrix(folder: Path) -> None:
    """Write the results of one model that was trained on two sets and tested on both, with made-up scores."""
    (folder / "jobs").mkdir(parents=True)
    generator, records = np.random.default_rng(0), []
    for trained_on, tested_on, model in [
        *((trained, tested, "A") for trained in ("one", "two") for tested in ("one", "two")),
        *((tested, tested, TRIVIAL) for tested in ("one", "two")),
    ]:
        k_shot, seed = (None, None) if model == TRIVIAL else (4, 0)
        labels = np.arange(20) % 2
        scores = (generator.normal(size=20) + 2 * labels).astype(np.float32)
        key = JobKey(tested_on, model, k_shot, seed, trained_on)
        row = {
            "title": key.column, "trained_on": trained_on, "tested_on": tested_on, "k_shot": k_shot, "seed": seed,
            "model": model, "error": None, "image_auroc": roc_auc_score(labels, scores),
            "device": "cpu", "versions": "",
            "steps": 1, "shared_images": 2 if (trained_on, tested_on, model) == ("one", "two", "A") else 0,
            "support_set_hash": "" if model == TRIVIAL else trained_on * 20,
        }  # fmt: skip
        record = folder / "jobs" / f"{len(records)}.json"
        record.write_text(json.dumps(row))
        names = np.array([f"{image}.png" for image in range(20)])
        np.savez(record.with_suffix(".npz"), names=names, labels=labels, scores=scores)
        records.append(record)
    write_results(records, folder)


def test_a_task_names_both_data_sets_and_has_the_baseline_of_its_test_set(tmp_path: Path) -> None:
    write_matrix(tmp_path)
    results = read_results(tmp_path)
    assert set(results.data_sets) == {"one", "one / two", "two / one", "two"}
    trivial = results.rows[results.rows["model"] == TRIVIAL].set_index("data")["image_auroc"]
    assert trivial["one / two"] == trivial["two"] != trivial["one"] == trivial["two / one"]
    assert results.columns("one / two", "A", 4) == {0: "A k4 seed0 trained on one"}
    for task, table in results.scores.items():
        assert list(table.columns)[2:] == [*results.columns(task, "A", 4).values(), TRIVIAL]


def test_the_report_prints_the_matrix_beside_published_figures(tmp_path: Path) -> None:
    write_matrix(tmp_path)
    published = tmp_path / "paper.csv"
    published.write_text("data,k_shot,model,metric,mean,std\none / two,4,A,image_auroc,61.5,1.0\n")
    write_report(tmp_path, published=[published])
    page = (tmp_path / "report.md").read_text()
    values = pd.read_csv(tmp_path / "results.csv").query("model == 'A'").set_index(["trained_on", "tested_on"])
    own, moved = (100 * values.loc[("one", name), "image_auroc"] for name in ("one", "two"))
    assert f"| one | {own:.1f} | {moved:.1f} (paper 61.5 ± 1.0) | {(own + moved) / 2:.1f} |" in page
    assert "one / two, k = 4: test images that are in the support set as well (seed 0: 2)" in page
    assert "6 jobs, 0 failed" in page
    assert "mean over data sets" not in page
    assert "paper 61.5 ± 1.0" in (tmp_path / "report.html").read_text()


def test_a_test_set_without_masks_has_image_metrics_only(sample_data: Path, tmp_path: Path) -> None:
    bare = {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data), "mask_dir": None, "name": "bare"}}
    plan = configuration(sample_data, tmp_path, train_on=["one"], test_on=["one", "bare"], seeds=[0])
    plan.data["bare"] = bare
    rows = next(job for job in jobs_of(plan) if job.model).measure()
    assert "pixel_auroc" in rows["one"]
    assert "pixel_auroc" not in rows["bare"]
    assert rows["bare"]["image_auroc"] == rows["one"]["image_auroc"]
