# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The command on a hospital's files: results beside each other, and the patient's name in none but the DICOM ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import REPOSITORY
from tests.helpers.scans import ORIENTATIONS, write_series
from tests.helpers.volumes import SECRET, make_nifti


@pytest.mark.slow
def test_the_command_writes_results_of_dicom_and_nifti_and_names_nobody(tmp_path: Path) -> None:
    volume = np.zeros((4, 20, 24), np.int16)
    volume[2, 5:10, 6:12] = 300
    paths = write_series(tmp_path / "study" / "ct", volume, ORIENTATIONS["negated columns"])
    make_nifti(tmp_path / "study" / "mr.nii.gz", volume)
    (tmp_path / "study" / "damaged.dcm").write_bytes(paths[0].read_bytes()[:900])
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("anomalib")), "predict", "--data", "study", "--window", "soft_tissue"),
            *("--model", "tests.helpers.brightness.Brightness", "--model.visualizer", "true"),
            *("--trainer.accelerator", "cpu"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert "Wrote the results of 2 volumes or DICOM images" in done.stdout + done.stderr
    assert done.returncode == 1  # one file is damaged
    assert SECRET not in done.stdout + done.stderr
    run = tmp_path / "results" / "Brightness" / "v0"
    written = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {path for path in written if path.startswith("volumes")} == {
        "volumes/slices.csv",
        *(f"volumes/study/ct/{name}" for name in ("anomaly_map.dcm", "pred_mask.dcm", "highest_slice.png")),
        *(
            f"volumes/study/mr.nii.gz/{name}"
            for name in ("anomaly_map.nii.gz", "pred_mask.nii.gz", "highest_slice.png")
        ),
    }
    named = {path for path in written if SECRET.encode() in (run / path).read_bytes()}
    assert named == {"volumes/study/ct/anomaly_map.dcm", "volumes/study/ct/pred_mask.dcm"}
    assert not [path for path in written if SECRET in path]
    report = json.loads((run / "run.json").read_text())
    # mr.nii.gz has 24 slices along its third axis
    assert (report["files"], report["images"], report["unreadable"]) == (6, 29, 1)
    assert report["display"]["window"] == "soft_tissue"
    assert len(pd.read_csv(run / "predictions.csv")) == 29
