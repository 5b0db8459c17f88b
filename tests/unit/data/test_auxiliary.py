# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Real anomalies of an auxiliary data set in place of painted ones."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from anomalib_mediclip.data import AuxiliaryData, MedicalFolder, UnifiedData
from tests.unit.data.small_datasets import SIDE, save_folder, save_industrial


def module(class_path: str, root: Path, **init_args: object) -> dict:
    return {"class_path": class_path, "init_args": {"root": str(root), **init_args}}


@pytest.fixture
def medical(tmp_path: Path) -> dict:
    return module("MedicalFolder", save_folder(tmp_path / "medical", masks=["1.png"], normal=8))


@pytest.fixture
def mvtec(tmp_path: Path) -> dict:
    return module("MVTecAD", save_industrial(tmp_path / "mvtec", ("bottle", "cable")))


def set_up(auxiliary: dict, medical: dict, **arguments: object) -> AuxiliaryData:
    datamodule = AuxiliaryData(auxiliary, medical, **{"k_shot": 4, "augmentations": v2.Resize((32, 32)), **arguments})
    datamodule.setup()
    return datamodule


class TestPairs:
    def test_all_test_images_of_all_categories_with_their_masks(self, mvtec: dict, medical: dict) -> None:
        real = set_up(mvtec, medical).real_anomalies
        names = [Path(path).parts[-4] for path in real.samples["image_path"]]
        assert {name: names.count(name) for name in names} == {"bottle": 5, "cable": 5}
        for index, row in enumerate(real.samples.itertuples()):
            assert "/test/" in row.image_path
            item = real[index]
            expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            if row.label_index:
                (mask,) = row.mask_path
                assert Path(mask).parts[-4:-1] == (names[index], "ground_truth", "broken")
                assert Path(mask).stem == f"{Path(row.image_path).stem}_mask"
                expected = torch.from_numpy(np.array(Image.open(mask)) > 0)
            assert torch.equal(torch.as_tensor(item.gt_mask), expected)

    def test_one_category(self, mvtec: dict, medical: dict) -> None:
        mvtec["init_args"]["category"] = "cable"
        real = set_up(mvtec, medical).real_anomalies
        assert {Path(path).parts[-4] for path in real.samples["image_path"]} == {"cable"}

    def test_visa_in_its_split_form(self, medical: dict, tmp_path: Path) -> None:
        save_industrial(tmp_path / "visa" / "visa_pytorch", ("candle", "pcb1"), "bad", suffix="")
        datamodule = set_up(module("Visa", tmp_path / "visa"), medical)
        assert datamodule.real_anomalies.samples["label_index"].tolist().count(1) == 6
        assert datamodule.describe()["auxiliary"] == "Visa (candle, pcb1)"

    def test_a_data_module_that_splits_its_test_set_gives_all_of_it(self, medical: dict, tmp_path: Path) -> None:
        root = save_industrial(tmp_path / "mvtec", ["bottle"]) / "bottle"
        folders = {
            "name": "bottle",
            "normal_dir": "train/good",
            "abnormal_dir": "test/broken",
            "normal_test_dir": "test/good",
            "mask_dir": "ground_truth/broken",
        }
        datamodule = set_up(module("Folder", root, **folders), medical)
        assert len(datamodule.real_anomalies) == 5

    def test_a_medical_data_set_as_the_auxiliary_one(self, medical: dict, tmp_path: Path) -> None:
        save_folder(tmp_path / "other", masks=["1.png", "1_mask_2.png", "3.png"])
        real = set_up(module("MedicalFolder", tmp_path / "other", k_shot=2), medical).real_anomalies
        assert sorted(map(len, real.samples["mask_path"])) == [0, 0, 1, 2]

    def test_training_shows_each_image_once_in_an_order_of_the_seed(self, mvtec: dict, medical: dict) -> None:
        def order(**arguments: object) -> list[str]:
            loader = set_up(mvtec, medical, train_batch_size=4, **arguments).train_dataloader()
            return [path for batch in loader for path in batch.image_path]

        first = order()
        assert len(first) == len(set(first)) == 10
        assert first == order()
        assert first != order(seed=1)

    def test_images_and_masks_are_augmented_together(self, mvtec: dict, medical: dict) -> None:
        datamodule = set_up(mvtec, medical, train_augmentations=v2.Resize((24, 24)))
        batch = next(iter(datamodule.train_dataloader()))
        assert batch.image.shape[1:] == (3, 24, 24)
        assert batch.gt_mask.shape[1:] == (24, 24)


class TestMedicalSide:
    def test_its_sets_calibrate_and_test(self, mvtec: dict, medical: dict, tmp_path: Path) -> None:
        datamodule = set_up(mvtec, medical, seed=2)
        alone = MedicalFolder(tmp_path / "medical", k_shot=4, seed=2)
        alone.setup()
        assert datamodule.support_set == alone.support_set
        assert datamodule.support_set_hash == alone.support_set_hash
        assert list(datamodule.train_data.samples["image_path"]) == list(alone.train_data.samples["image_path"])
        assert list(datamodule.test_data.samples["image_path"]) == list(alone.test_data.samples["image_path"])
        assert len(datamodule.val_data) == len(alone.val_data)
        assert datamodule.real_anomalies.support is datamodule.train_data

    def test_describe_tells_both(self, mvtec: dict, medical: dict, tmp_path: Path) -> None:
        described = set_up(mvtec, medical).describe()
        assert described["data_set"] == "MedicalFolder"
        assert described["auxiliary"] == "MVTecAD (bottle, cable)"
        assert described["auxiliary_images"] == 10
        (tmp_path / "mvtec" / "cable" / "test" / "good" / "000.png").unlink()
        assert set_up(mvtec, medical).describe()["auxiliary_hash"] != described["auxiliary_hash"]


class TestMistakes:
    def test_half_of_the_data(self, mvtec: dict, medical: dict) -> None:
        with pytest.raises(ValueError, match=r"data\.medical is None: give a mapping with class_path"):
            AuxiliaryData(mvtec)
        with pytest.raises(ValueError, match=r"data\.auxiliary is None: give a mapping with class_path"):
            AuxiliaryData(medical=medical)

    def test_no_anomalies(self, mvtec: dict, medical: dict, tmp_path: Path) -> None:
        for category in ("bottle", "cable"):
            shutil.rmtree(tmp_path / "mvtec" / category / "test" / "broken")
            shutil.rmtree(tmp_path / "mvtec" / category / "ground_truth")
        with pytest.raises(ValueError, match=r"MVTecAD in .*mvtec.* has no anomalous test image with a mask \(4 test"):
            set_up(mvtec, medical)

    def test_no_masks(self, mvtec: dict, medical: dict, tmp_path: Path) -> None:
        shutil.rmtree(tmp_path / "mvtec" / "cable" / "ground_truth")
        with pytest.raises(ValueError, match=r"MVTecAD cannot read cable in .*mvtec.*needs its mask"):
            set_up(mvtec, medical)

    def test_a_set_without_masks(self, medical: dict, tmp_path: Path) -> None:
        save_folder(tmp_path / "other")
        with pytest.raises(ValueError, match=r"no anomalous test image with a mask \(5 test images, 3 anomalous"):
            set_up(module("MedicalFolder", tmp_path / "other", k_shot=2), medical)

    def test_images_without_a_mask_are_left_out_and_named(
        self, medical: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        save_folder(tmp_path / "other", masks=["2.png"])
        with caplog.at_level(logging.WARNING):
            datamodule = set_up(module("MedicalFolder", tmp_path / "other", k_shot=2), medical)
        assert len(datamodule.real_anomalies) == 3
        assert "2 images without a mask are left out" in caplog.text
        assert "abnormal/3.png" in caplog.text

    def test_an_empty_mask(self, mvtec: dict, medical: dict, tmp_path: Path) -> None:
        mask = tmp_path / "mvtec" / "bottle" / "ground_truth" / "broken" / "001_mask.png"
        Image.new("L", (SIDE, SIDE)).save(mask)
        with pytest.raises(ValueError, match=r"1 of 10 auxiliary images cannot be used:\s+.*001_mask\.png"):
            set_up(mvtec, medical)
        assert len(set_up(mvtec, medical, on_error="skip").real_anomalies) == 9

    def test_no_such_folder(self, medical: dict, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no category of Visa in .*nowhere.*expected <category>/test"):
            set_up(module("Visa", tmp_path / "nowhere"), medical)

    def test_real_anomalies_are_not_lost_within_other_data(self, mvtec: dict, medical: dict) -> None:
        full = {
            "auxiliary": mvtec | {"class_path": "anomalib.data.MVTecAD"},
            "medical": medical | {"class_path": "anomalib_mediclip.MedicalFolder"},
        }
        inner = {"class_path": "AuxiliaryData", "init_args": full}
        with pytest.raises(ValueError, match=r"data\.parts\.brain is an AuxiliaryData"):
            UnifiedData({"brain": inner})
        with pytest.raises(TypeError, match=r"data\.medical is an AuxiliaryData too"):
            AuxiliaryData(mvtec, inner)
