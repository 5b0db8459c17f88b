# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Contact sheet through its command line."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from anomalib_mediclip.synthesis import MedicalAnomalyGenerator
from anomalib_mediclip.synthesis.contact_sheet import write_contact_sheet

COMMAND = [sys.executable, "-m", "anomalib_mediclip.synthesis"]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(40, 220, (90, 110), dtype=np.uint8)).save(tmp_path / f"normal ({index}).png")
    Image.fromarray(np.zeros((90, 110), np.uint8)).save(tmp_path / "normal (0)_mask.png")
    return tmp_path


@pytest.mark.slow
def test_command_writes_a_sheet_and_says_where(folder):
    output = folder / "sheets" / "sheet.png"
    options = ["--output", output, "--number", "5", "--image_size", "64", "--seed", "1", "--tasks", '{"source": 1}']
    done = subprocess.run([*COMMAND, folder, *options], capture_output=True, text=True, check=True)
    assert str(output) in done.stdout
    sheet = np.asarray(Image.open(output))
    assert sheet.shape[1] > 6 * 64  # two samples of three tiles side by side
    assert sheet.shape[0] > 3 * 64
    yellow = (sheet == (255, 210, 0)).all(axis=2)
    assert yellow.sum() > 5 * 30  # outlines of five masks


@pytest.mark.slow
def test_wrong_option_ends_with_a_message(folder):
    done = subprocess.run([*COMMAND, folder, "--tasks", '{"sorce": 1}'], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "sorce" in done.stderr
    assert "Traceback" not in done.stderr


def test_folder_without_images_and_no_samples_are_named(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="empty"):
        write_contact_sheet(empty, tmp_path / "sheet.png", MedicalAnomalyGenerator())
    with pytest.raises(ValueError, match="number=0"):
        write_contact_sheet(folder, tmp_path / "sheet.png", MedicalAnomalyGenerator(), number=0)


@pytest.mark.slow
def test_help_explains_the_options():
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    for words in ("Folder of normal images", "--blending {poisson,paste}", "Poisson image editing", "--seed"):
        assert words in done.stdout
