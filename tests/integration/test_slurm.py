# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Benchmarks by submitit: its local executor, the script that Slurm gets, and a real Slurm where one can be started."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import submitit

from anomalib_mediclip.benchmark.configuration import read_configuration
from anomalib_mediclip.benchmark.launchers import SlurmRunner, slurm_executor
from anomalib_mediclip.benchmark.pipeline import FewShotJobGenerator
from anomalib_mediclip.cluster.options import ClusterOptions
from tests.conftest import REPOSITORY
from tests.helpers.slurm import missing_for_slurm, slurm
from tests.integration.test_benchmark import MEDICLIP, command, write_config

pytestmark = pytest.mark.slow

GOLDEN = REPOSITORY / "tests" / "data" / "slurm_script.sh"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def test_submitits_local_executor_runs_the_sweep_and_local_goes_on_with_it(
    sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, sample_data, {"MediCLIP": MEDICLIP}, seeds=[0])
    configuration = read_configuration(Path("benchmark.yaml"), Path("data"), Path("out"))
    configuration.folder.mkdir()
    executor = submitit.LocalExecutor(tmp_path / "submitit")
    executor.update_parameters(timeout_min=5)
    SlurmRunner(FewShotJobGenerator(configuration), ClusterOptions(), executor).run({})
    table = pd.read_csv("out/results.csv")
    assert table["model"].tolist() == ["MediCLIP", "mean brightness"]
    assert table["error"].isna().all()
    assert all(job.is_finished for job in FewShotJobGenerator(configuration).all_jobs())  # whoever runs them next


def test_what_slurm_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").touch(mode=0o755)
    (programs / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 12\n")
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    options = ClusterOptions(cpus=8, gpus=1, time_limit=90, slurm={"partition": "gpu", "mem": "32G"})
    jobs = slurm_executor(tmp_path / "slurm", options).map_array(len, ["first", "second"])
    assert [job.job_id for job in jobs] == ["12_0", "12_1"]
    texts = {script.read_text() for script in (tmp_path / "slurm").glob("*submission*.sh")}
    assert len(texts) == 1  # one array
    text = texts.pop().replace(str(tmp_path), "FOLDER").replace(sys.executable, "PYTHON")
    assert text.rstrip() == GOLDEN.read_text().rstrip()


def test_a_machine_without_slurm_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"this machine has no Slurm \(no command srun\)"):
        slurm_executor(tmp_path / "slurm", ClusterOptions())


@pytest.mark.skipif(bool(missing_for_slurm()), reason=missing_for_slurm())
def test_a_sweep_on_slurm_and_a_job_that_slurm_loses(sample_data: Path, tmp_path: Path) -> None:
    write_config(tmp_path, sample_data, {"MediCLIP": MEDICLIP}, seeds=[0])
    arguments = [*command(tmp_path), "--launcher", "slurm", "--cluster.time_limit", "10"]
    with slurm(tmp_path / "slurm"):
        process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines = iter(process.stdout.readline, "")
        number = next(found[1] for line in lines if (found := re.search(r"slurm job (\d+)", line)))
        subprocess.run(["scancel", f"{number}_1"], check=True)
        printed = process.communicate(timeout=240)[0]
        assert process.returncode == 1, printed
        assert f"the job {number}_1 has ended without a result" in printed
        again = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 jobs, 1 of them finished before" in again.stdout
    assert pd.read_csv(tmp_path / "out" / "results.csv")["error"].isna().all()
