# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Folders of other categories."""

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_mediclip.io import read_image
from anomalib_mediclip.models.components.feature_cache import FeatureCache
from anomalib_mediclip.models.reg_ad.categories import OtherCategories, TargetFingerprints

NUMBERS = {"first": 4, "second": 9, "third": 3}


def write(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Write constant images that show 20 times the number of their folder plus their own number."""
    for folder, name in enumerate(NUMBERS, start=1):
        for number in range(NUMBERS[name]):
            write(tmp_path / name / "deeper" / f"{number}.png", 20 * folder + number)
    return [tmp_path / name for name in NUMBERS]


def categories(folders: list[Path], shots: int = 2, target: TargetFingerprints | None = None) -> OtherCategories:
    return OtherCategories(folders, shots, read_image, target or TargetFingerprints([], []), FeatureCache(Path()))


def shown(images: torch.Tensor) -> torch.Tensor:
    return (images[..., 0, 0, 0] * 255).round().long()


def draws(found: OtherCategories, number: int, queries: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [tuple(map(shown, found.draw(queries, generator))) for _ in range(number)]


def test_a_batch_comes_from_one_folder_and_supports_are_others_of_it(folders: list[Path]) -> None:
    for queries, supports in draws(categories(folders), 100):
        assert supports.shape == (len(queries), 2)
        assert len({value // 20 for value in torch.cat([queries, supports.flatten()]).tolist()}) == 1
        assert len(set(queries.tolist())) == len(queries)
        for own, others in zip(queries.tolist(), supports.tolist(), strict=True):
            assert len({own, *others}) == 3


def test_folders_are_drawn_by_their_number_of_images_and_all_images_are_used(folders: list[Path]) -> None:
    seen = draws(categories(folders), 800, queries=2)
    shares = Counter(queries[0].item() // 20 for queries, _ in seen)
    for folder, number in enumerate(NUMBERS.values(), start=1):
        assert shares[folder] == pytest.approx(800 * number / 16, abs=60)
    expected = {20 * folder + image for folder, number in enumerate(NUMBERS.values(), 1) for image in range(number)}
    assert {value for queries, _ in seen for value in queries.tolist()} == expected


def test_a_folder_with_fewer_images_than_queries_gives_all_of_them(folders: list[Path]) -> None:
    sizes = {len(queries) for queries, _ in draws(categories(folders), 50, queries=6)}
    assert sizes == {3, 4, 6}


def test_too_few_images_are_refused_with_folder_number_and_cure(folders: list[Path]) -> None:
    assert categories(folders, shots=2).numbers == [4, 9, 3]
    with pytest.raises(ValueError, match=r"third holds 3 images, .* needs 4\. .*--model\.shots"):
        categories(folders, shots=3)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        categories([tmp_path / "nowhere"])


def test_images_of_the_support_set_are_refused_by_their_files_and_by_their_pixels(folders, tmp_path) -> None:
    own = write(tmp_path / "own" / "patient.png", 200)
    support = TargetFingerprints([own], [read_image(own)])
    categories(folders, target=support)
    shutil.copy(own, folders[1] / "renamed.png")
    with pytest.raises(ValueError, match=r"renamed\.png is an image of the support set"):
        categories(folders, target=support)
    (folders[1] / "renamed.png").unlink()
    Image.open(own).save(folders[2] / "converted.bmp")  # another file, the same pixels
    with pytest.raises(ValueError, match=r"converted\.bmp is an image of the support set"):
        categories(folders, target=support)
    with pytest.raises(ValueError, match=r"converted\.bmp"):
        categories(folders, target=TargetFingerprints([], [read_image(own)]))


def test_numbers_of_images_and_folders_are_logged(folders: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        categories(folders)
    assert "16 images of 3 folders" in caplog.text
