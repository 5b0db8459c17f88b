# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Items, their cache, and the synthetic validation set."""

import os
from pathlib import Path

import pytest
import torch
from anomalib import TaskType
from torchvision.transforms import v2

from anomalib_mediclip.data import MedicalDataset, Sample, SyntheticValidationDataset
from anomalib_mediclip.data.samples import to_dataframe
from tests.unit.data.small_datasets import SIDE, save_image, save_mask

RESIZE = v2.Resize((32, 40), antialias=True)


def make_dataset(folder: Path, count: int = 4, cache: bool = False) -> MedicalDataset:
    samples = [Sample(save_image(folder / f"{number}.png", number)) for number in range(count)]
    dataset = MedicalDataset(to_dataframe(samples, "train", TaskType.SEGMENTATION), cache=cache)
    dataset.augmentations = RESIZE
    return dataset


@pytest.fixture
def mixed(tmp_path: Path) -> MedicalDataset:
    """A normal image, one with two masks and one without a mask."""
    images = [
        save_image(tmp_path / f"{name}.png", seed) for seed, name in enumerate(("a_normal", "b_two", "c_unknown"))
    ]
    masks = (save_mask(tmp_path / "masks" / "1.png", row=0), save_mask(tmp_path / "masks" / "2.png", row=20))
    samples = [Sample(images[0]), Sample(images[1], True, masks), Sample(images[2], True)]
    return MedicalDataset(to_dataframe(samples, "test", TaskType.SEGMENTATION))


class TestMedicalDataset:
    def test_labels_and_masks(self, mixed: MedicalDataset) -> None:
        normal, lesions, unknown = (mixed[index] for index in range(3))
        assert [bool(item.gt_label) for item in (normal, lesions, unknown)] == [False, True, True]
        assert normal.gt_mask.shape == (SIDE, SIDE)
        assert not normal.gt_mask.any()
        assert not unknown.gt_mask.any()
        assert lesions.gt_mask.any(dim=1).nonzero().flatten().tolist() == [0, 1, 2, 3, 20, 21, 22, 23]
        assert [Path(path).name for path in lesions.mask_path.split(os.pathsep)] == ["1.png", "2.png"]

    def test_resize_reaches_image_and_mask(self, mixed: MedicalDataset) -> None:
        mixed.augmentations = RESIZE
        assert mixed[1].image.shape == (3, 32, 40)
        assert mixed[1].gt_mask.shape == (32, 40)

    def test_bicubic_resize_stays_in_range(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path, count=1)
        dataset.augmentations = v2.Resize((97, 97), interpolation=v2.InterpolationMode.BICUBIC)
        assert dataset[0].image.min() >= 0
        assert dataset[0].image.max() <= 1

    def test_set_without_masks_has_no_gt_mask(self, tmp_path: Path) -> None:
        samples = [Sample(save_image(tmp_path / "1.png")), Sample(save_image(tmp_path / "2.png"), is_abnormal=True)]
        dataset = MedicalDataset(to_dataframe(samples, "test", TaskType.CLASSIFICATION))
        assert dataset.task == TaskType.CLASSIFICATION
        batch = dataset.collate_fn([dataset[0], dataset[1]])
        assert batch.gt_mask is None
        assert batch.gt_label.tolist() == [False, True]

    def test_images_of_different_sizes_make_a_batch(self, mixed: MedicalDataset) -> None:
        small = mixed[0]
        mixed.augmentations = v2.Resize((96, 96))
        assert mixed.collate_fn([small, mixed[1]]).image.shape == (2, 3, 96, 96)

    def test_subsample_and_sum(self, mixed: MedicalDataset) -> None:
        joined = mixed.subsample([2]) + mixed.subsample([0])
        assert joined.task == TaskType.SEGMENTATION
        assert [Path(item.image_path).stem for item in (joined[0], joined[1])] == ["a_normal", "c_unknown"]
        assert len(mixed) == 3


class TestCache:
    def test_items_are_identical(self, tmp_path: Path) -> None:
        plain, cached = make_dataset(tmp_path), make_dataset(tmp_path, cache=True)
        for index in (0, 3, 0, 3):
            assert torch.equal(plain[index].image, cached[index].image)
            assert torch.equal(plain[index].gt_mask, cached[index].gt_mask)
            assert plain[index].image_path == cached[index].image_path

    def test_files_are_read_once(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path, cache=True)
        before = dataset[0].image
        save_image(tmp_path / "0.png", seed=99)
        assert torch.equal(dataset[0].image, before)
        assert not torch.equal(make_dataset(tmp_path / "new")[0].image, make_dataset(tmp_path)[1].image)

    def test_callers_cannot_corrupt_it(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path, cache=True)
        item = dataset[0]
        before = item.image.clone()
        item.image.zero_()
        item.gt_mask.fill_(True)
        assert torch.equal(dataset[0].image, before)
        assert not dataset[0].gt_mask.any()

    def test_new_augmentations_empty_it(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path, cache=True)
        assert dataset[0].image.shape == (3, 32, 40)
        dataset.augmentations = v2.Compose([v2.Resize((40, 40)), v2.Resize((20, 20))])
        assert dataset[0].image.shape == (3, 20, 20)

    def test_random_augmentations_are_not_kept(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path, cache=True)
        dataset.augmentations = v2.Compose([RESIZE, v2.RandomRotation(90)])
        assert not torch.equal(dataset[0].image, dataset[0].image)

    def test_subsample_of_a_full_cache(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path, cache=True)
        last = [dataset[index] for index in range(4)][3]
        assert torch.equal(dataset.subsample([3])[0].image, last.image)


class TestSyntheticValidation:
    @pytest.mark.parametrize(("k_shot", "painted"), [(3, 18), (4, 16), (16, 16), (20, 20)])
    def test_at_least_sixteen_are_painted(self, tmp_path: Path, k_shot: int, painted: int) -> None:
        labels = SyntheticValidationDataset(make_dataset(tmp_path, k_shot)).samples.label_index
        assert (labels == 0).sum() == k_shot
        assert (labels == 1).sum() == painted

    def test_masks_mark_what_was_painted(self, tmp_path: Path) -> None:
        support = make_dataset(tmp_path, cache=True)
        originals = {support[index].image_path: support[index].image for index in range(4)}
        validation = SyntheticValidationDataset(support)
        for item in (validation[index] for index in range(len(validation))):
            changed = (item.image != originals[item.image_path]).any(dim=0)
            assert bool(item.gt_label) == bool(item.gt_mask.any()) == bool(changed.any())
            assert not (changed & ~item.gt_mask).any()

    def test_same_seed_same_set(self, tmp_path: Path) -> None:
        support = make_dataset(tmp_path, cache=True)
        first, same, other = (SyntheticValidationDataset(support, seed) for seed in (1, 1, 2))
        # read in opposite orders, and the painted ones twice
        forwards = [first[index].image for index in range(len(first))]
        backwards = [same[index].image for index in reversed(range(len(same)))][::-1]
        assert all(map(torch.equal, forwards, backwards))
        assert all(torch.equal(first[index].image, image) for index, image in enumerate(forwards))
        assert not all(torch.equal(other[index].image, image) for index, image in enumerate(forwards))

    def test_rounds_differ(self, tmp_path: Path) -> None:
        validation = SyntheticValidationDataset(make_dataset(tmp_path, count=1, cache=True))
        images = [validation[index].image for index in range(len(validation))]
        assert len({image.numpy().tobytes() for image in images}) == 17

    def test_augmentations_reach_the_images_but_not_the_training(self, tmp_path: Path) -> None:
        support = make_dataset(tmp_path, cache=True)
        validation = SyntheticValidationDataset(support)
        assert validation[1].image.shape == (3, 32, 40)
        validation.augmentations = v2.Resize((64, 64))
        assert {validation[index].image.shape for index in range(len(validation))} == {(3, 64, 64)}
        assert validation[1].gt_mask.shape == (64, 64)
        assert support[0].image.shape == (3, 32, 40)
        assert len(support) == 4
