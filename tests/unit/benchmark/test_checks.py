# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Problems that are found before the first job."""

from pathlib import Path
from typing import Any

import pytest

from anomalib_mediclip.benchmark.checks import find_problems
from anomalib_mediclip.benchmark.configuration import BenchmarkConfiguration, read_configuration
from tests.conftest import REPOSITORY

MODEL = {"class_path": "MediCLIP", "init_args": {"layers": [3]}, "trainer": {"max_epochs": 3}}


def problems(sample_data: Path, model: dict[str, Any] | None = None, k_shot: int = 4, **data: Any) -> list[str]:
    specification = {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data)}, **data}
    configuration = BenchmarkConfiguration(
        models={"A": {**MODEL, **(model or {})}},
        data={"mine": specification},
        k_shot=[k_shot],
        seeds=[0],
        output=Path("out"),
        device="cpu",
    )
    return find_problems(configuration)


def test_what_is_right_has_none(sample_data: Path) -> None:
    assert problems(sample_data) == []
    assert problems(sample_data, {"class_path": "Patchcore", "init_args": {}, "trainer": {}}) == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"class_path": "MediCLOP"}, ["models.A:", "no AnomalibModule named 'MediCLOP'"]),
        ({"init_args": {"layrs": [3]}}, ["models.A:", "layrs"]),
        ({"init_args": {"temperature": "warm"}}, ["models.A:", "temperature"]),
        ({"init_args": {"seed": 3}}, ["models.A:", "init_args has seed, which the benchmark sets itself"]),
        ({"init_args": {"post_processor": False}}, ["has post_processor, which the benchmark sets itself"]),
        ({"trainer": {"max_epoch": 3}}, ["models.A.trainer:", "max_epoch is no argument", "did you mean max_epochs?"]),
        ({"trainer": {"max_epochs": "many"}}, ["models.A.trainer:", "max_epochs"]),
        ({"trainer": {"devices": 2}}, ["models.A.trainer:", "devices, which the benchmark sets itself"]),
    ],
)
def test_models(sample_data: Path, model: dict[str, Any], words: list[str]) -> None:
    (problem,) = problems(sample_data, model)
    assert all(word in problem for word in words), problem


def test_data_sets(sample_data: Path, tmp_path: Path) -> None:
    (missing,) = problems(sample_data, init_args={"root": str(tmp_path / "nowhere")})
    assert "data.mine: no folder" in missing
    (unknown,) = problems(sample_data, class_path="MedicalFolders")
    assert "no FewShotDataModule named 'MedicalFolders'" in unknown
    (fixed,) = problems(sample_data, init_args={"root": str(sample_data), "k_shot": 2})
    assert "init_args has k_shot, which the benchmark sets itself" in fixed
    (few,) = problems(sample_data, k_shot=4000)
    assert "data.mine: k_shot 4000 is more than the" in few


def test_all_are_listed_at_once(sample_data: Path) -> None:
    model = {"class_path": "MediCLOP", "trainer": {"max_epoch": 3}}
    assert len(problems(sample_data, model, k_shot=4000)) == 3


SHIPPED = sorted((REPOSITORY / "configs" / "benchmark").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_models_of_the_shipped_configurations_have_none(path: Path) -> None:
    found = find_problems(read_configuration(path))
    assert [problem for problem in found if problem.startswith("models.")] == []
