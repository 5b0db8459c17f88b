# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""One's own folders."""

from pathlib import Path

import pytest
from anomalib import TaskType

from anomalib_mediclip.data import MedicalFolder
from tests.unit.data.small_datasets import save_folder, save_image


def set_up(root: Path, **arguments: object) -> MedicalFolder:
    datamodule = MedicalFolder(root, k_shot=None, **arguments)
    datamodule.setup()
    return datamodule


def masks_by_image(datamodule: MedicalFolder) -> dict[str, list[str]]:
    samples = datamodule.test_data.samples
    abnormal = samples[samples.label_index == 1]
    return {
        Path(image).name: [Path(mask).name for mask in masks]
        for image, masks in zip(abnormal.image_path, abnormal.mask_path, strict=True)
    }


def test_masks_are_found_by_name(tmp_path: Path) -> None:
    masks = ["1_mask.png", "10_mask.png", "10_mask_1.png", "abnormal/2_mask.png"]
    datamodule = set_up(save_folder(tmp_path, masks, abnormal=10))
    expected = {f"{number}.png": [] for number in range(1, 11)}
    expected.update({"1.png": ["1_mask.png"], "2.png": ["2_mask.png"], "10.png": ["10_mask.png", "10_mask_1.png"]})
    assert masks_by_image(datamodule) == expected
    assert datamodule.task == TaskType.SEGMENTATION


def test_natural_order_of_the_pool(tmp_path: Path) -> None:
    support = set_up(save_folder(tmp_path, normal=11)).support_set
    assert [path.stem for path in support] == [str(number) for number in range(1, 12)]


def test_default_masks_may_be_missing(tmp_path: Path) -> None:
    datamodule = set_up(save_folder(tmp_path))
    assert datamodule.task == TaskType.CLASSIFICATION
    assert datamodule.test_data[0].gt_mask is None


def test_masks_can_be_left_out(tmp_path: Path) -> None:
    assert set_up(save_folder(tmp_path, ["1.png"]), mask_dir=None).task == TaskType.CLASSIFICATION


def test_named_masks_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="boxes"):
        set_up(save_folder(tmp_path), mask_dir="boxes")


def test_mask_without_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"7_mask\.png has no image"):
        set_up(save_folder(tmp_path, ["1_mask.png", "7_mask.png"]))


@pytest.mark.parametrize("folder", ["normal_dir", "normal_test_dir", "abnormal_dir"])
def test_missing_folder_is_named(tmp_path: Path, folder: str) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        set_up(save_folder(tmp_path), **{folder: "elsewhere"})


def test_other_folders_and_name(tmp_path: Path) -> None:
    save_folder(tmp_path)
    save_image(tmp_path / "healthy" / "1.png")
    datamodule = set_up(tmp_path, normal_dir="healthy", name="Mine")
    assert datamodule.support_set == [tmp_path / "healthy" / "1.png"]
    assert datamodule.name == "Mine"


def test_chest_radiographs_with_some_boxes(real_data: Path) -> None:
    datamodule = MedicalFolder(real_data / "chest_nih", mask_dir="boxes", k_shot=32)
    datamodule.setup()
    assert datamodule.test_data.samples.label_index.value_counts().to_dict() == {0: 250, 1: 250}
    masks = masks_by_image(datamodule)
    boxed = [index for index, paths in enumerate(datamodule.test_data.samples.mask_path) if paths]
    assert sum(map(bool, masks.values())) == len(boxed) == 41
    assert all(Path(image).stem == Path(paths[0]).stem for image, paths in masks.items() if paths)
    assert all(datamodule.test_data[index].gt_mask.any() for index in boxed[::10])
