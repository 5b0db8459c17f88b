# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib few_shot_benchmark``, as a user runs it: tiny models on the shipped sample set."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from filelock import FileLock
from sklearn.metrics import roc_auc_score

METRICS = ["image_auroc", "pixel_auroc", "aupro", "image_aupr", "trainable_parameters", "support_set_hash"]
KEYS = ["trained_on", "tested_on", "k_shot", "seed", "model"]
SIZE = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64]}}
PATCHCORE = {
    "class_path": "Patchcore",
    "init_args": {
        "backbone": "resnet18",
        "pre_trained": False,
        "pre_processor": {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": SIZE}},
    },
}
SIMPLENET = {
    "class_path": "SimpleNet",
    "init_args": {"encoder": "timm/resnet18", "weights": None, "image_size": [64, 64], "noise": 0.5},
    "trainer": {"max_epochs": 2},
}
MEDICLIP = {
    "class_path": "MediCLIP",
    "init_args": {
        "encoder": "timm/resnet18",
        "weights": None,
        "image_size": [64, 64],
        "layers": [3, 4],
        "prompt": "prototype",
    },
    "trainer": {"max_epochs": 1},
}


def command(folder: Path) -> list[str]:
    return [
        str(Path(sys.executable).with_name("anomalib")),
        *("few_shot_benchmark", "--config", "benchmark.yaml", "--data_root", str(folder / "data"), "--output", "out"),
    ]


def write_config(folder: Path, sample_data: Path, models: dict, **changes) -> None:
    data = {"sample": {"class_path": "MedicalFolder", "init_args": {"root": "sample", "name": "sample"}}}
    section = {"seeds": [0, 1], "k_shot": [4], "data": data, "models": models, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.yaml").write_text(
        yaml.safe_dump({"accelerator": "cpu", "few_shot_benchmark": section}, sort_keys=False)
    )
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "sample").symlink_to(sample_data)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder), capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> tuple[Path, str]:
    """An uninterrupted benchmark of three models: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    write_config(folder, sample_data, {"PatchCore": PATCHCORE, "SimpleNet": SIMPLENET, "MediCLIP": MEDICLIP})
    result = run(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "out", result.stdout


def test_help_names_it_and_explains_its_arguments() -> None:
    anomalib = str(Path(sys.executable).with_name("anomalib"))
    listed = subprocess.run([anomalib, "--help"], capture_output=True, text=True, check=False)
    assert "few_shot_benchmark" in listed.stdout
    explained = subprocess.run([anomalib, "few_shot_benchmark", "--help"], capture_output=True, text=True, check=False)
    text = " ".join(explained.stdout.split())
    for words in ("Folder that holds the data sets", "--few_shot_benchmark.test_on", "every normal training image"):
        assert words in text


def test_every_model_has_a_row_and_the_same_support_set(whole: tuple[Path, str]) -> None:
    table = pd.read_csv(whole[0] / "results.csv")
    assert table["model"].tolist() == ["PatchCore"] * 2 + ["SimpleNet"] * 2 + ["MediCLIP"] * 2 + ["mean brightness"]
    trained = table[table["seed"].notna()]
    assert (trained.groupby("seed")["support_set_hash"].nunique() == 1).all()
    assert trained["support_set_hash"].nunique() == 2
    assert trained["steps"].tolist() == [1, 1, 2, 2, 1, 1]
    assert trained["trainable_parameters"].tolist()[:2] == [0, 0]
    assert table["error"].isna().all()


def test_auroc_is_scikit_learns_on_the_exported_raw_scores(whole: tuple[Path, str]) -> None:
    table = pd.read_csv(whole[0] / "results.csv")
    scores = pd.read_csv(whole[0] / "scores" / "sample.csv")
    assert len(scores) == 40
    for row in table[table["seed"].notna()].itertuples():
        column = scores[f"{row.model} k{row.k_shot:.0f} seed{row.seed:.0f}"]
        assert row.image_auroc == pytest.approx(roc_auc_score(scores["label"], column), abs=1e-6)
    unbounded = scores[[name for name in scores if name.startswith(("PatchCore", "SimpleNet"))]]
    assert ((unbounded < 0) | (unbounded > 1)).any(axis=None)  # raw, not squeezed into [0, 1]


def test_report_is_written_and_named(whole: tuple[Path, str]) -> None:
    folder, printed = whole
    assert "report.html" in printed
    assert "7 jobs, 0 of them finished before" in printed
    html = (folder / "report.html").read_text()
    for word in ("PatchCore", "SimpleNet", "MediCLIP", "mean brightness", "Heat maps"):
        assert word in html
    assert (folder / "report.md").is_file()


def test_killed_benchmark_goes_on_where_it_stopped(whole: tuple[Path, str], sample_data: Path, tmp_path: Path) -> None:
    write_config(tmp_path, sample_data, {"PatchCore": PATCHCORE, "SimpleNet": SIMPLENET, "MediCLIP": MEDICLIP})
    jobs = tmp_path / "out" / "jobs"
    process = subprocess.Popen(command(tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(jobs.glob("*.json"))) < 3:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in jobs.glob("*.json")}
    assert 3 <= len(finished) < 7
    result = run(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"7 jobs, {len(finished)} of them finished before" in result.stdout
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    columns = [*KEYS, *METRICS]
    expected, resumed = (pd.read_csv(out / "results.csv")[columns] for out in (whole[0], tmp_path / "out"))
    pd.testing.assert_frame_equal(expected, resumed, check_exact=True)
    scores = [(out / "scores" / "sample.csv").read_text() for out in (whole[0], tmp_path / "out")]
    assert scores[0] == scores[1]


PARALLEL = """
from pathlib import Path
from anomalib.pipelines.components.runners import ParallelRunner
from anomalib_mediclip.benchmark.configuration import read_configuration
from anomalib_mediclip.benchmark.pipeline import FewShotJobGenerator

if __name__ == "__main__":
    configuration = read_configuration(Path("benchmark.yaml"), Path("data"), Path("out"))
    ParallelRunner(FewShotJobGenerator(configuration, with_progress=True), n_jobs=2).run({})
"""


def test_anomalibs_parallel_runner_gives_the_same_table(
    whole: tuple[Path, str], sample_data: Path, tmp_path: Path
) -> None:
    write_config(tmp_path, sample_data, {"PatchCore": PATCHCORE, "SimpleNet": SIMPLENET, "MediCLIP": MEDICLIP})
    (tmp_path / "parallel.py").write_text(PARALLEL)
    result = subprocess.run([sys.executable, "parallel.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert "7/7" in result.stderr  # progress
    columns = [*KEYS, *METRICS]
    expected, parallel = (pd.read_csv(out / "results.csv")[columns] for out in (whole[0], tmp_path / "out"))
    pd.testing.assert_frame_equal(expected, parallel, check_exact=True)


def test_broken_model_is_a_hole_in_the_report_and_the_others_finish(sample_data: Path, tmp_path: Path) -> None:
    broken = {**SIMPLENET, "init_args": {**SIMPLENET["init_args"], "layers": [9]}}
    write_config(tmp_path, sample_data, {"SimpleNet": broken, "MediCLIP": MEDICLIP}, seeds=[0])
    result = run(tmp_path)
    assert result.returncode == 1
    assert "1 of 3 jobs failed" in result.stdout
    table = pd.read_csv(tmp_path / "out" / "results.csv").set_index("model")
    assert "ValueError" in table.loc["SimpleNet", "error"]
    assert table.loc["MediCLIP", "image_auroc"] >= 0
    assert "failed" in (tmp_path / "out" / "report.md").read_text()
    assert "ValueError" in (tmp_path / "out" / "report.html").read_text()


def test_wrong_configuration_ends_with_one_clear_line(sample_data: Path, tmp_path: Path) -> None:
    write_config(tmp_path, sample_data, {}, seeds=[0])
    result = run(tmp_path)
    assert result.returncode != 0
    assert "few_shot_benchmark.models" in result.stderr
    assert "it must be a mapping by name that is not empty" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_mistakes_are_listed_before_the_first_job(sample_data: Path, tmp_path: Path) -> None:
    typo = {**MEDICLIP, "trainer": {"max_epoch": 1}}
    write_config(tmp_path, sample_data, {"SimpelNet": {"class_path": "SimpelNet"}, "MediCLIP": typo}, k_shot=[4000])
    result = run(tmp_path)
    assert result.returncode == 1
    printed = " ".join(result.stderr.split())
    for problem in ("no AnomalibModule named 'SimpelNet'", "did you mean max_epochs?", "k_shot 4000 is more than"):
        assert problem in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.rglob("*.json"))


def test_results_of_other_images_are_not_taken_for_those_of_these(sample_data: Path, tmp_path: Path) -> None:
    write_config(tmp_path, sample_data, {"SimpleNet": SIMPLENET}, seeds=[0])
    root = tmp_path / "data" / "sample"
    root.unlink()
    shutil.copytree(sample_data, root)
    images = sorted((root / "test" / "normal").glob("*.png"))
    assert "2 jobs, 0 of them finished before" in run(tmp_path).stdout
    first = pd.read_csv(tmp_path / "out" / "results.csv")["image_auroc"]
    shutil.copy(sorted((root / "test" / "abnormal").glob("*.png"))[0], images[0])
    shutil.copy(images[0], images[0].with_name("added.png"))
    result = run(tmp_path)
    assert "2 jobs, 0 of them finished before" in result.stdout
    assert result.returncode == 0, result.stderr
    assert (pd.read_csv(tmp_path / "out" / "results.csv")["image_auroc"] < first).all()
    assert len(pd.read_csv(tmp_path / "out" / "scores" / "sample.csv")) == 41
    assert "2 jobs, 2 of them finished before" in run(tmp_path).stdout


DOOMED = """
import os, signal
from anomalib_mediclip.models.simplenet.lightning_model import SimpleNet

class Doomed(SimpleNet):
    def training_step(self, *args, **kwargs):
        if not os.path.exists("spared"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(*args, **kwargs)
"""


def test_a_job_that_is_killed_says_why_and_runs_again(sample_data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    doomed = {**SIMPLENET, "class_path": "doomed.Doomed"}
    write_config(tmp_path, sample_data, {"Doomed": doomed, "SimpleNet": SIMPLENET}, seeds=[0])
    (tmp_path / "doomed.py").write_text(DOOMED)
    result = run(tmp_path)
    assert result.returncode == 1
    assert "was killed, most likely because memory ran out" in result.stdout
    assert "1 of 3 jobs failed" in result.stdout
    (tmp_path / "spared").touch()
    result = run(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "3 jobs, 2 of them finished before" in result.stdout
    aurocs = pd.read_csv(tmp_path / "out" / "results.csv").set_index("model")["image_auroc"]
    assert aurocs["Doomed"] == aurocs["SimpleNet"]


def test_a_second_process_is_refused(sample_data: Path, tmp_path: Path) -> None:
    write_config(tmp_path, sample_data, {"MediCLIP": MEDICLIP}, seeds=[0])
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        result = run(tmp_path)
    assert result.returncode == 1
    assert "another process runs a benchmark in out: wait until it has ended" in " ".join(result.stderr.split())
    assert not (tmp_path / "out" / "jobs").exists()


UNGUARDED = """
import sys
from anomalib_mediclip.benchmark import FewShotBenchmark
sys.argv = ["benchmark", "--config", "benchmark.yaml", "--data_root", "data", "--output", "out"]
FewShotBenchmark().run()
"""


def test_a_script_without_a_guard_is_told_so(sample_data: Path, tmp_path: Path) -> None:
    write_config(tmp_path, sample_data, {"MediCLIP": MEDICLIP}, seeds=[0])
    (tmp_path / "script.py").write_text(UNGUARDED)
    result = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert 'if __name__ == "__main__":' in result.stdout
    assert "memory" not in result.stdout
