# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""BUSI and BrainMRI: the splits of the paper."""

from pathlib import Path

import pytest
from anomalib import TaskType

from anomalib_mediclip.data import BUSI, BrainMRI
from tests.unit.data.small_datasets import save_image, save_mask


def test_busi_split_of_the_paper(real_data: Path) -> None:
    pool, test = BUSI(real_data / "Dataset_BUSI_with_GT").read_layout()
    assert [sample.image.stem for sample in pool] == [f"normal ({number})" for number in range(1, 33)]
    normal = [sample.image.stem for sample in test if not sample.is_abnormal]
    assert normal == [f"normal ({number})" for number in range(33, 134)]
    tumours = [sample for sample in test if sample.is_abnormal]
    assert len(tumours) == 647
    assert all(mask.stem.startswith(f"{sample.image.stem}_mask") for sample in tumours for mask in sample.masks)
    assert all(sample.masks for sample in tumours)
    assert sum(len(sample.masks) > 1 for sample in tumours) == 17


def test_busi_items(real_data: Path) -> None:
    datamodule = BUSI(real_data / "Dataset_BUSI_with_GT", k_shot=4)
    datamodule.setup()
    assert datamodule.task == TaskType.SEGMENTATION
    samples = datamodule.test_data.samples
    several = int(samples.mask_path.map(len).to_numpy().argmax())
    item = datamodule.test_data[several]
    assert item.gt_mask.shape == item.image.shape[-2:]
    assert 0 < item.gt_mask.float().mean() < 0.5


def test_busi_below_the_folder_of_the_archive(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset_BUSI_with_GT"
    for number in range(1, 35):
        save_image(folder / "normal" / f"normal ({number}).png", number)
        save_mask(folder / "normal" / f"normal ({number})_mask.png")
    for kind in ("benign", "malignant"):
        save_image(folder / kind / f"{kind} (1).png", 99)
        save_mask(folder / kind / f"{kind} (1)_mask.png")
    pool, test = BUSI(tmp_path).read_layout()
    assert len(pool) == 32
    assert [(sample.image.name, len(sample.masks)) for sample in test] == [
        ("normal (33).png", 0),
        ("normal (34).png", 0),
        ("benign (1).png", 1),
        ("malignant (1).png", 1),
    ]


def test_brain_mri_split_of_the_paper(real_data: Path) -> None:
    pool, test = BrainMRI(real_data / "brain_tumor_dataset").read_layout()
    assert len(pool) == 32
    assert sum(not sample.is_abnormal for sample in test) == 65
    assert sum(sample.is_abnormal for sample in test) == 155
    assert not {sample.image for sample in pool} & {sample.image for sample in test}


def test_brain_mri_below_the_folder_of_the_archive(tmp_path: Path) -> None:
    for name in ("yes/Y1.jpg", "no/1 no.jpeg", "no/2 no.jpeg"):
        save_image(tmp_path / "brain_tumor_dataset" / name)
    datamodule = BrainMRI(tmp_path)
    pool, test = datamodule.read_layout()
    assert [sample.image.name for sample in pool] == ["1 no.jpeg", "2 no.jpeg"]
    assert [sample.image.name for sample in test] == ["Y1.jpg"]


@pytest.mark.parametrize(("datamodule_class", "expected"), [(BUSI, "malignant/"), (BrainMRI, "yes/ and no/")])
def test_other_layout_tells_what_was_found(
    tmp_path: Path,
    datamodule_class: type[BUSI | BrainMRI],
    expected: str,
) -> None:
    for name in ("scans", "labels.csv"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match=rf"expected .*{expected}.*found labels\.csv, scans"):
        datamodule_class(tmp_path).setup()
