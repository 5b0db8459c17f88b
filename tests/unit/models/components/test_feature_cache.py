# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Room for features, in memory and in a file."""

import pytest
import torch

from anomalib_mediclip.models.components.feature_cache import (
    FeatureCache,
    NoSpaceError,
    check_finite,
    fill,
    progress_bar,
)


def columns(rows: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(rows, 3, 2, 2, generator=generator), torch.rand(rows, 5, 1, 1, generator=generator)
    return [features[0].half(), features[1].half(), torch.rand(rows, 4, 4, generator=generator)]


@pytest.mark.parametrize("limit", [4.0, 0.0])
def test_what_is_written_is_read_in_any_order(tmp_path, limit) -> None:
    table, written = FeatureCache(tmp_path, limit).table(6), columns(6)
    table.write(range(4), [column[:4] for column in written])
    table.write([5, 4], [column[[5, 4]] for column in written])
    for order in ([0, 1, 2, 3, 4, 5], [5, 0, 0], [3]):
        for found, expected in zip(table.read(order), written, strict=True):
            assert torch.equal(found, expected[order])
            assert found.dtype == expected.dtype
    assert table.size == sum(column.nbytes for column in written)


def test_reading_returns_copies(tmp_path) -> None:
    table = FeatureCache(tmp_path).table(2)
    table.write([0, 1], columns(2))
    table.read([0])[0].zero_()
    assert torch.equal(table.read([0])[0], columns(2)[0][:1])


def test_memory_is_bounded_and_the_rest_goes_to_the_disk(tmp_path) -> None:
    size = sum(column.nbytes for column in columns(10))
    before = mapped_files()
    cache = FeatureCache(tmp_path / "run", limit=1.5 * size / 1e9)
    first, second = cache.table(10), cache.table(10)
    first.write(range(10), columns(10))
    assert mapped_files() == before
    second.write(range(10), columns(10, seed=1))
    assert mapped_files() == before + 1
    assert torch.equal(first.read([7])[2], columns(10)[2][[7]])
    assert torch.equal(second.read([7])[2], columns(10, seed=1)[2][[7]])
    assert list((tmp_path / "run").iterdir()) == []  # without a name, so nothing stays behind
    del second
    assert mapped_files() == before


def mapped_files() -> int:
    """Number of files without a name that this process has mapped."""
    with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123
        return len({line.split()[4] for line in maps if line.endswith("(deleted)\n") and "/run/" in line})


def test_claims_are_granted_until_the_limit() -> None:
    cache = FeatureCache(None, limit=100e-9)
    assert [cache.claim(60), cache.claim(60), cache.claim(40), cache.claim(1)] == [True, False, True, False]
    with pytest.raises(ValueError, match="cache_limit=-1"):
        FeatureCache(None, limit=-1)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch) -> None:
    table, size = FeatureCache(tmp_path, limit=0).table(10), sum(column.nbytes for column in columns(10))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(size // 2))
    with pytest.raises(NoSpaceError) as error:
        table.write(range(2), columns(2))
    assert (error.value.needed, error.value.free, error.value.folder) == (size, size // 2, tmp_path)
    assert error.value.fitting(10) == 5


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_disk_that_fills_up_in_between_is_the_same_error(tmp_path, monkeypatch) -> None:
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(NoSpaceError, match="GB free"):
        FeatureCache(tmp_path, limit=0).table(1).write([0], columns(1))


def test_images_are_encoded_in_portions_and_in_order(tmp_path) -> None:
    table, sizes = FeatureCache(tmp_path).table(40), []

    def encode(images: torch.Tensor) -> list[torch.Tensor]:
        sizes.append(len(images))
        return [2 * images]

    items = ((str(row), (torch.full((3, 1, 1), row), torch.tensor(-row))) for row in range(37))
    with progress_bar(None, 37) as progress:
        fill(table, 3, items, encode, progress)
    assert sizes == [8, 8, 8, 8, 5]
    doubled, others = table.read(range(3, 40))
    assert torch.equal(doubled[:, 0, 0, 0], 2 * torch.arange(37))
    assert torch.equal(others, -torch.arange(37))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_the_image(wrong) -> None:
    features = [torch.zeros(3, 2, 4, 4), torch.zeros(3, 5, 2, 2)]
    check_finite(features, ["a.png", "b.png", "c.png"])
    features[1][1, 4, 0, 1] = wrong
    with pytest.raises(FloatingPointError, match=r"features of b.png are not finite.*--model.weights"):
        check_finite(features, ["a.png", "b.png", "c.png"])


def test_features_too_large_for_float16_say_so() -> None:
    with pytest.raises(FloatingPointError, match=r"--model.views null.*65504"):
        check_finite([torch.full((1, 1, 1, 1), 1e5).half()], ["a.png"])
