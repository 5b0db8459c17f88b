# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Several data sets as one."""

import hashlib
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from anomalib_mediclip.data import BalancedSampler, MedicalFolder, UnifiedData
from anomalib_mediclip.data.dataset import image_names
from tests.unit.data.small_datasets import save_folder, save_image


def part(root: Path, **init_args: object) -> dict:
    return {"class_path": "MedicalFolder", "init_args": {"root": str(root), **init_args}}


def set_of(path: str | Path) -> str:
    return Path(path).parts[-4]


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, dict]:
    """Three sets: with masks of all lesions, without any, and with a mask of one lesion."""
    roots = {name: tmp_path / name for name in ("breast", "brain", "chest")}
    save_folder(roots["breast"], masks=["1.png", "2.png", "3.png"], normal=12)
    save_folder(roots["brain"], normal=7)
    save_folder(roots["chest"], masks=["2.png"], normal=6)
    for seed, file in enumerate(sorted(tmp_path.rglob("*.png"))):
        if "masks" not in file.parts:
            save_image(file, seed)  # or the sets would hold copies of each other's images
    return {name: part(root) for name, root in roots.items()}


def set_up(parts: dict[str, dict], **arguments: object) -> UnifiedData:
    datamodule = UnifiedData(parts, **{"k_shot": 4, "augmentations": v2.Resize((32, 32)), **arguments})
    datamodule.setup()
    return datamodule


class TestBalancedSampler:
    @pytest.mark.parametrize("sizes", [(16, 16, 16), (5, 1, 12), (3,)])
    @pytest.mark.parametrize("epoch", [0, 7])
    def test_every_stretch_is_balanced_and_every_image_is_seen(self, sizes: tuple[int, ...], epoch: int) -> None:
        ends = np.cumsum(sizes).tolist()
        groups = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
        sampler = BalancedSampler(groups, seed=3)
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler) == len(sizes) * max(sizes)
        assert set(order) == set(range(sum(sizes)))
        for length in range(1, len(order)):
            for start in range(len(order) - length + 1):
                counts = [sum(position in group for position in order[start : start + length]) for group in groups]
                assert max(counts) - min(counts) <= 1

    def test_order_depends_on_seed_and_epoch_only(self) -> None:
        orders = set()
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
            sampler = BalancedSampler([range(8), range(8, 16)], seed)
            sampler.set_epoch(epoch)
            assert list(sampler) == list(sampler)
            orders.add(tuple(sampler))
        assert len(orders) == 3


class TestSets:
    def test_a_part_has_the_support_set_of_its_own_data_module(self, parts: dict, tmp_path: Path) -> None:
        unified = set_up(parts, seed=5)
        alone = MedicalFolder(tmp_path / "breast", k_shot=4, seed=5)
        alone.setup()
        assert unified.parts["breast"].support_set == alone.support_set
        assert unified.support_set[:4] == alone.support_set
        assert len(unified.support_set) == 12
        content = b"".join(path.read_bytes() for path in unified.support_set)
        assert unified.support_set_hash == hashlib.sha256(content).hexdigest()
        assert unified.support_set_hash != set_up(parts, seed=6).support_set_hash

    def test_every_image_knows_its_set(self, parts: dict, tmp_path: Path) -> None:
        unified = set_up(parts)
        for dataset, size in ((unified.train_data, 4), (unified.test_data, 5)):
            assert dataset.samples["data_set"].value_counts().to_dict() == dict.fromkeys(parts, size)
            for row in dataset.samples.itertuples():
                assert Path(row.image_path).is_relative_to(tmp_path / row.data_set)

    def test_every_batch_is_balanced(self, parts: dict) -> None:
        unified = set_up(parts, train_batch_size=6)
        for batch in unified.train_dataloader():
            assert Counter(map(set_of, batch.image_path)) == dict.fromkeys(parts, 2)

    def test_all_takes_every_training_image(self, parts: dict) -> None:
        unified = set_up(parts, k_shot="all")
        assert [len(part.support_set) for part in unified.parts.values()] == [12, 7, 6]
        seen = [path for batch in unified.train_dataloader() for path in batch.image_path]
        assert Counter(map(set_of, seen)) == dict.fromkeys(parts, 12)
        assert set(seen) == set(map(str, unified.support_set))

    def test_lesions_of_a_set_without_masks_stay_unknown(self, parts: dict) -> None:
        unified = set_up(parts)
        known: dict[str, int] = dict.fromkeys(parts, 0)
        for index, row in enumerate(unified.test_data.samples.itertuples()):
            item = unified.test_data[index]
            assert item.gt_mask is not None
            known[row.data_set] += bool(item.gt_mask.any())
        assert known == {"breast": 3, "brain": 0, "chest": 1}

    def test_without_any_mask_there_are_none(self, parts: dict) -> None:
        assert set_up({"brain": parts["brain"]}).test_data[0].gt_mask is None

    def test_a_part_without_a_test_is_trained_on(self, parts: dict, tmp_path: Path) -> None:
        shutil.rmtree(tmp_path / "brain" / "test")
        unified = set_up(parts)
        assert set(unified.test_data.samples["data_set"]) == {"breast", "chest"}
        assert set(unified.train_data.samples["data_set"]) == set(parts)
        assert unified.can_test

    def test_anomalies_are_painted_on_every_set(self, parts: dict) -> None:
        validation = set_up(parts).val_data
        items = [validation[index] for index in range(len(validation))]
        painted = Counter(set_of(item.image_path) for item in items if item.gt_mask.any())
        assert set(painted) == set(parts)
        assert sum(painted.values()) >= 16

    def test_names_of_images_do_not_tell_where_the_sets_lie(self, parts: dict, tmp_path: Path) -> None:
        names = set(image_names(set_up(parts).train_data).values())
        assert {name.split("/")[0] for name in names} == set(parts)
        (tmp_path / "elsewhere").mkdir()
        moved = Path(shutil.move(tmp_path / "brain", tmp_path / "elsewhere"))
        unified = set_up(parts | {"brain": part(moved)})
        assert set(image_names(unified.train_data).values()) == names
        assert set(image_names(unified.val_data).values()) == names

    def test_describe_adds_up(self, parts: dict) -> None:
        described = set_up(parts).describe()
        assert described["data_set"] == "UnifiedData (breast, brain, chest)"
        assert described["k_shot"] == 12
        assert described["pool_size"] == 25
        assert described["test_set_hash"] != set_up({"brain": parts["brain"]}).describe()["test_set_hash"]

    def test_options_hold_for_the_parts(self, parts: dict) -> None:
        unified = UnifiedData(parts, k_shot=3, eval_batch_size=5, on_error="skip")
        for module in unified.parts.values():
            assert (module.k_shot, module.eval_batch_size, module.on_error) == (3, 5, "skip")


class TestMistakes:
    def test_no_parts(self) -> None:
        for parts in ({}, None):
            with pytest.raises(ValueError, match=r"data\.parts is empty"):
                UnifiedData(parts)

    def test_no_class(self) -> None:
        with pytest.raises(ValueError, match=r"data\.parts\.brain is .*datasets.*give a mapping with class_path"):
            UnifiedData({"brain": {"root": "datasets"}})

    def test_no_such_class(self, parts: dict) -> None:
        with pytest.raises(ValueError, match=r"data\.parts\.brain is no FewShotDataModule"):
            UnifiedData(parts | {"brain": {"class_path": "anomalib.data.MVTecAD"}})

    def test_an_option_of_one_part(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"data\.parts\.brain sets k_shot, seed.*give data\.k_shot, data\.seed"):
            UnifiedData({"brain": part(tmp_path, seed=1, k_shot=4)})

    def test_a_pool_that_is_too_small_is_named(self, parts: dict) -> None:
        with pytest.raises(ValueError, match=r"data\.parts\.chest: cannot draw k_shot=7 images from a pool of 6"):
            set_up(parts, k_shot=7)

    def test_the_same_folder_twice(self, parts: dict) -> None:
        with pytest.raises(ValueError, match=r"data\.parts\.brain and data\.parts\.head train on the same files"):
            set_up({"brain": parts["brain"], "head": parts["brain"]})

    def test_an_image_that_one_part_trains_on_and_another_tests(
        self, parts: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shutil.copy(tmp_path / "brain/train/normal/3.png", tmp_path / "chest/test/normal/1.png")
        with caplog.at_level(logging.WARNING):
            set_up(parts, k_shot="all")
        (message,) = (text for text in caplog.messages if "optimistic" in text)
        assert f"{tmp_path / 'brain/train/normal/3.png'} = {tmp_path / 'chest/test/normal/1.png'}" in message

    def test_copies_in_two_support_sets(self, parts: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        shutil.copy(tmp_path / "brain/train/normal/3.png", tmp_path / "chest/train/normal/1.png")
        with caplog.at_level(logging.WARNING):
            set_up(parts, k_shot="all")
        assert caplog.text.count("brain and chest train on copies of the same images") == 1

    def test_colour_beside_grey(self, parts: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            set_up(parts)
        assert "are in colour" not in caplog.text
        for file in (tmp_path / "breast/train/normal").iterdir():
            pixels = np.random.default_rng(int(file.stem)).integers(0, 255, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
        with caplog.at_level(logging.WARNING):
            unified = set_up(parts)
        assert "images of breast are in colour, those of brain, chest are grey" in caplog.text
        assert all(unified.train_data[index].image.shape == (3, 32, 32) for index in range(12))
