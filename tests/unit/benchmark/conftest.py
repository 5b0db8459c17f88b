# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A small benchmark and its report, built once."""

from pathlib import Path

import pytest

from anomalib_mediclip.benchmark.report import write_report
from tests.unit.benchmark.small_benchmark import save_benchmark

PUBLISHED = (
    "data,k_shot,model,metric,mean,std\n"
    "BUSI,4,mediclip,pixel_auroc,88.0,0.3\n"
    "BUSI,16,MediCLIP,pixel_auroc,85.5,\n"
    "BUSI,4,RegAD,pixel_auroc,71.9,3.1\n"
)


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a benchmark."""
    return save_benchmark(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published figures for two of its cells."""
    path = tmp_path_factory.mktemp("published") / "paper.csv"
    path.write_text(PUBLISHED)
    return path


@pytest.fixture(scope="session")
def report(benchmark: Path, published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of its report."""
    return write_report(benchmark, [published], output=tmp_path_factory.mktemp("report")).parent
