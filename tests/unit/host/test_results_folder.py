# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Folders of runs."""

from pathlib import Path

import pytest
from anomalib.engine import Engine
from lightning.pytorch.utilities import rank_zero_only

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.host.results_folder import new_version


def test_results_of_a_time_without_versions_become_one(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "predictions.csv").write_text("former")
    assert new_version(tmp_path) == tmp_path / "v1"
    assert (tmp_path / "v0" / "predictions.csv").read_text() == "former"
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"
    assert new_version(tmp_path) == tmp_path / "v2"


def test_only_the_first_process_makes_the_folder_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MediCLIP("timm/resnet18", None, layers=[2, 3], prompt="prototype", image_size=(64, 64))
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        Engine(default_root_dir=tmp_path)._setup_workspace(model, versioned_dir=True)
    assert sorted(path.name for path in (tmp_path / "MediCLIP").iterdir()) == ["latest", "v0"]
