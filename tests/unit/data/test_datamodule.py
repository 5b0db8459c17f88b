# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Draw and order of the support set, and what all datamodules share."""

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.trainer.states import TrainerFn
from torchvision.transforms import v2

from anomalib_mediclip.data import MedicalFolder, SupportSampler, draw_support_set
from anomalib_mediclip.data.datamodule import FewShotDataModule
from anomalib_mediclip.data.samples import Sample
from tests.unit.data.small_datasets import save_folder, save_image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return save_folder(tmp_path / "data", masks=["1.png"], normal=12)


def set_up(root: Path, **arguments: object) -> MedicalFolder:
    datamodule = MedicalFolder(root, **{"k_shot": 5, "augmentations": v2.Resize((32, 32)), **arguments})
    datamodule.setup()
    return datamodule


class TestDraw:
    def test_draws_without_replacement(self) -> None:
        drawn = draw_support_set(32, 16, seed=0)
        assert drawn == sorted(set(drawn))
        assert len(drawn) == 16
        assert set(drawn) <= set(range(32))

    def test_depends_on_the_seed_only(self) -> None:
        draws = {tuple(draw_support_set(32, 4, seed)) for seed in range(20)}
        assert len(draws) > 15
        assert draw_support_set(32, 4, 7) == draw_support_set(32, 4, 7)

    def test_all_takes_all_and_so_does_none(self) -> None:
        for k_shot in ("all", None, 5):
            assert draw_support_set(5, k_shot, seed=3) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("given", ["all", "null"])
    def test_all_can_be_given_as_text(self, given: str, root: Path) -> None:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(FewShotDataModule, "data")
        parsed = parser.parse_args(["--data=MedicalFolder", f"--data.root={root}", f"--data.k_shot={given}"])
        datamodule = parser.instantiate_classes(parsed).data
        datamodule.setup()
        assert len(datamodule.support_set) == 12 == datamodule.describe()["k_shot"]
        with pytest.raises(ArgumentError, match="every"):
            parser.parse_args(["--data=MedicalFolder", "--data.k_shot=every"])

    @pytest.mark.parametrize("k_shot", [33, 0, -1, "every"])
    def test_impossible_numbers_are_named(self, k_shot: int) -> None:
        with pytest.raises(ValueError, match=rf"k_shot={k_shot} .* pool of 32"):
            draw_support_set(32, k_shot, seed=0)


class TestSampler:
    def test_every_epoch_has_its_own_order(self) -> None:
        sampler = SupportSampler(16, seed=1)
        orders = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.append(list(sampler))
            assert orders[-1] == list(sampler), "the order must not depend on how often it is read"
        assert all(sorted(order) == list(range(16)) for order in orders)
        assert len(set(map(tuple, orders))) == 3

    def test_resumed_run_continues_with_the_same_order(self) -> None:
        sampler, resumed = SupportSampler(16), SupportSampler(16)
        for epoch in range(5):
            sampler.set_epoch(epoch)
            order = list(sampler)
        resumed.set_epoch(4)
        assert list(resumed) == order

    def test_seed_changes_the_order(self) -> None:
        assert list(SupportSampler(16, seed=0)) != list(SupportSampler(16, seed=1))


class TestSetup:
    def test_sets(self, root: Path) -> None:
        datamodule = set_up(root)
        assert [Path(path) for path in sorted(datamodule.train_data.samples.image_path)] == sorted(
            datamodule.support_set
        )
        assert len(datamodule.train_data) == 5, "validation must not take images from the training"
        assert datamodule.test_data.samples.label_index.value_counts().to_dict() == {1: 3, 0: 2}
        assert datamodule.val_data.samples.label_index.value_counts().to_dict() == {1: 20, 0: 5}
        assert set(datamodule.val_data.samples.image_path) == set(datamodule.train_data.samples.image_path)

    def test_a_test_set_without_normal_images_takes_none_from_the_support_set(self, root: Path) -> None:
        class OnlyAbnormal(MedicalFolder):
            def read_layout(self) -> tuple[list[Sample], list[Sample]]:
                pool, test = super().read_layout()
                return pool, [sample for sample in test if sample.is_abnormal]

        datamodule = OnlyAbnormal(root, k_shot=5)
        datamodule.setup()
        assert len(datamodule.train_data) == 5
        assert datamodule.test_data.samples["label_index"].tolist() == [1, 1, 1]

    def test_draw_depends_on_the_seed(self, root: Path) -> None:
        assert set_up(root, seed=1).support_set == set_up(root, seed=1).support_set
        assert set_up(root, seed=1).support_set != set_up(root, seed=2).support_set

    def test_too_few_images(self, root: Path) -> None:
        with pytest.raises(ValueError, match=r"k_shot=16 .* pool of 12"):
            set_up(root, k_shot=16)

    def test_missing_root_tells_what_is_expected(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere.*MedicalFolder.*train/normal"):
            set_up(tmp_path / "nowhere")

    def test_hash_is_over_the_bytes_of_the_images(self, root: Path) -> None:
        datamodule = set_up(root)
        content = b"".join(path.read_bytes() for path in datamodule.support_set)
        assert datamodule.support_set_hash == hashlib.sha256(content).hexdigest()

    def test_drawn_names_are_logged(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            datamodule = set_up(root)
        assert f"5 of 12 images: {', '.join(path.name for path in datamodule.support_set)}" in caplog.text


class TestDuplicates:
    def test_image_in_both_sets_is_named_once(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        shutil.copy(root / "train/normal/3.png", root / "test/normal/other.png")
        datamodule = set_up(root, k_shot=None)
        datamodule.setup()
        (message,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert "3.png = " in message
        assert "other.png" in message
        assert "the test score is optimistic" in message

    def test_different_images_are_fine(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        set_up(root, k_shot=None)
        assert "optimistic" not in caplog.text


class TestRecord:
    def attach_trainer(self, datamodule: FewShotDataModule, folder: Path, rank: int = 0) -> None:
        datamodule.trainer = SimpleNamespace(default_root_dir=str(folder), is_global_zero=rank == 0)

    def test_support_set_is_written_when_training_starts(self, root: Path, tmp_path: Path) -> None:
        datamodule = MedicalFolder(root, k_shot=3, seed=4, name="Mine")
        self.attach_trainer(datamodule, tmp_path / "results")
        datamodule.setup(TrainerFn.FITTING)
        lines = (tmp_path / "results/support_set.txt").read_text().splitlines()
        header = [line for line in lines if line.startswith("#")]
        assert [root / line for line in lines[len(header) :]] == datamodule.support_set
        for entry in ("data set: Mine", "k: 3", "seed: 4", "pool size: 12", datamodule.support_set_hash):
            assert any(line.endswith(entry) for line in header)

    @pytest.mark.parametrize(("stage", "rank"), [(TrainerFn.TESTING, 0), (TrainerFn.FITTING, 1)])
    def test_nothing_is_written_otherwise(self, root: Path, tmp_path: Path, stage: TrainerFn, rank: int) -> None:
        datamodule = MedicalFolder(root, k_shot=3)
        self.attach_trainer(datamodule, tmp_path, rank)
        datamodule.setup(stage)
        assert not (tmp_path / "support_set.txt").exists()


class TestLoaders:
    @pytest.mark.parametrize("loader_of", [MedicalFolder.train_dataloader, MedicalFolder.val_dataloader])
    def test_workers_change_nothing(
        self, root: Path, loader_of: Callable[[MedicalFolder], torch.utils.data.DataLoader]
    ) -> None:
        loaders = [loader_of(set_up(root, num_workers=workers, train_batch_size=2)) for workers in (0, 2)]
        assert [loader.num_workers for loader in loaders] == [0, 2]
        for alone, together in zip(*loaders, strict=True):
            assert alone.image_path == together.image_path
            assert torch.equal(alone.image, together.image)
            assert torch.equal(alone.gt_mask, together.gt_mask)

    def test_persistent_workers_follow_the_epoch(self, root: Path) -> None:
        loader = set_up(root, num_workers=1, k_shot=None).train_dataloader()
        orders = []
        for epoch in (0, 1, 0):
            loader.sampler.set_epoch(epoch)
            orders.append([path for batch in loader for path in batch.image_path])
        assert orders[0] == orders[2] != orders[1]

    def test_batch_may_exceed_the_support_set(self, root: Path) -> None:
        (batch,) = set_up(root, k_shot=2, train_batch_size=8).train_dataloader()
        assert batch.image.shape == (2, 3, 32, 32)

    def test_workers_are_chosen_by_the_number_of_images(self, root: Path) -> None:
        assert set_up(root).test_dataloader().num_workers == 0
        for number in range(100):
            save_image(root / "test/normal" / f"more_{number}.png", number)
        assert set_up(root).test_dataloader().num_workers > 0
        assert set_up(root).train_dataloader().num_workers == 0
        assert set_up(root, num_workers=0).test_dataloader().num_workers == 0
