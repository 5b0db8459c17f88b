# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.official import OfficialRun

REPOSITORY = Path(__file__).resolve().parents[1]


def real_data_folder() -> Path | None:
    """Return the folder of real images that ``MEDICLIP_TEST_DATA`` names, or ``None`` if it is not set."""
    folder = os.environ.get("MEDICLIP_TEST_DATA")
    if folder and not Path(folder).is_dir():
        pytest.fail(f"MEDICLIP_TEST_DATA={folder} is not a folder")
    return Path(folder) if folder else None


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """Forget, before and after each test, what seeds and options of the command leave in the environment."""
    options = ("MAX_MEGAPIXELS", "WINDOW", "SLICE_PLANE")
    names = ("PL_GLOBAL_SEED", *(f"ANOMALIB_MEDICLIP_{option}" for option in options))
    for name in names:
        os.environ.pop(name, None)
    yield
    for name in names:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real images, or skip the test."""
    root = real_data_folder()
    if root is None:
        pytest.skip("needs real images: set MEDICLIP_TEST_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Return the folder of reference values of the official implementation."""
    return REPOSITORY / "tests" / "data"


@pytest.fixture(scope="session")
def official(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> "OfficialRun":
    """Return the official implementation's run on a tiny random CLIP."""
    from tests.helpers.official import write_official_run  # imports anomalib, which takes long

    return write_official_run(fixtures / "official_tiny_vit.safetensors", tmp_path_factory.mktemp("tiny_clip"))


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """Return the data set that ships with the project."""
    return REPOSITORY / "datasets" / "sample"
