# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""One's own folders."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from anomalib import TaskType
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalib_mediclip.data import MedicalFolder
from tests.unit.data.small_datasets import save_folder, save_image, save_mask


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


def test_one_line_says_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_folder(tmp_path, ["1.png", "3.png"])
    for name in ("train/normal/1.pdf", "test/normal/2.PDF", "test/abnormal/notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.INFO):
        set_up(tmp_path, name="Mine")
    assert "Mine: support pool 6; test 2 normal, 3 anomalous, 2 with masks; skipped 2 .pdf, 1 .txt" in caplog.messages


class TestMasksInOddPlaces:
    @pytest.mark.parametrize("name", ["test/ground_truth", "GT", "boxes", "Segmentations"])
    def test_without_a_folder_of_masks_it_is_said_which_may_be_meant(
        self, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        save_mask(save_folder(tmp_path) / name / "1.png")
        with caplog.at_level(logging.WARNING):
            assert set_up(tmp_path).task == TaskType.CLASSIFICATION
        assert "the evaluation is per image, not per pixel. Give data.mask_dir if these hold the masks" in caplog.text
        assert f"hold the masks: {name}." in caplog.text

    @pytest.mark.parametrize("place", ["test/abnormal/masks", "test/abnormal/Label_1", "test/abnormal/ground_truth"])
    def test_masks_below_the_images_are_no_test_images(
        self, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        save_mask(save_folder(tmp_path) / place / "1.png")
        with caplog.at_level(logging.WARNING):
            assert list(masks_by_image(set_up(tmp_path)).values()) == [[], [], []]
        assert "1 files in" in caplog.text
        assert "look like masks" in caplog.text
        assert masks_by_image(set_up(tmp_path, mask_dir=place)) == {"1.png": ["1.png"], "2.png": [], "3.png": []}

    def test_masks_beside_the_images(self, tmp_path: Path) -> None:
        save_mask(save_folder(tmp_path) / "test" / "abnormal" / "2_mask.png")
        for mask_dir in ("test/abnormal", "test"):
            found = masks_by_image(set_up(tmp_path, mask_dir=mask_dir))
            assert found == {"1.png": [], "2.png": ["2_mask.png"], "3.png": []}

    def test_images_and_masks_in_folders_of_these_names(self, tmp_path: Path) -> None:
        save_folder(tmp_path)
        shutil.move(tmp_path / "test" / "abnormal", tmp_path / "images")
        (tmp_path / "test" / "abnormal").mkdir()
        shutil.move(tmp_path / "images", tmp_path / "test" / "abnormal" / "images")
        save_mask(tmp_path / "test" / "abnormal" / "masks" / "1.png")
        assert masks_by_image(set_up(tmp_path, mask_dir="test/abnormal/masks"))["1.png"] == ["1.png"]

    def test_masks_beside_normal_images_are_not_trained_on(self, tmp_path: Path) -> None:
        save_mask(save_folder(tmp_path) / "train" / "normal" / "1_mask.png")
        assert len(set_up(tmp_path).support_set) == 6


@pytest.mark.parametrize(
    "folders",
    [
        {"abnormal_dir": "test"},
        {"normal_dir": "test/normal"},
        {"normal_dir": "."},
        {"normal_test_dir": "test/abnormal"},
    ],
)
def test_overlapping_folders_are_refused(tmp_path: Path, folders: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="lies within"):
        set_up(save_folder(tmp_path), **folders)


@pytest.mark.parametrize("missing", ["test/abnormal", "test"])
@pytest.mark.parametrize("named", [True, False])
def test_only_normal_images_can_be_trained_on(
    tmp_path: Path, missing: str, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(save_folder(tmp_path) / missing)
    arguments = {"abnormal_dir": None, "normal_test_dir": None} if named else {}
    with caplog.at_level(logging.WARNING):
        datamodule = set_up(tmp_path, **arguments)
    assert len(datamodule.train_data) == 6
    assert not datamodule.can_test
    assert "no anomalous test images: the model is trained" in caplog.text
    with pytest.raises(ValueError, match="nothing to test"):
        datamodule.setup("test")


class TestFaults:
    def break_some(self, root: Path) -> None:
        save_folder(root, ["1.png", "2.png"], abnormal=5)
        Image.fromarray(np.zeros((48, 48), dtype=np.uint8)).save(root / "masks" / "3.png")
        Image.fromarray(np.eye(48, 96, dtype=np.uint8)).save(root / "masks" / "4.png")
        (root / "test" / "abnormal" / "5.png").write_bytes(b"rubbish")

    def test_they_are_found_before_the_training(self, tmp_path: Path) -> None:
        self.break_some(tmp_path)
        with pytest.raises(ValueError, match="3 of 7 test images cannot be used") as raised:
            set_up(tmp_path)
        for fault in (
            "3.png is empty",
            "4.png is 96x48 pixels but its image 48x48",
            "5.png: not an image",
            "on_error=skip",
        ):
            assert fault in str(raised.value)

    def test_they_can_be_left_out(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.break_some(tmp_path)
        (tmp_path / "train" / "normal" / "2.png").write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            datamodule = set_up(tmp_path, on_error="skip")
        assert masks_by_image(datamodule) == {"1.png": ["1.png"], "2.png": ["2.png"]}
        assert [path.name for path in datamodule.support_set] == ["1.png", "3.png", "4.png", "5.png", "6.png"]
        for fault in ("3 of 7 test images cannot be used", "1 of 6 images of the support set cannot be used", "2.png"):
            assert fault in caplog.text

    def test_pixels_are_checked_too_if_faults_are_left_out(self, tmp_path: Path) -> None:
        image = save_folder(tmp_path) / "test" / "normal" / "1.png"
        image.write_bytes(image.read_bytes()[:1000])
        datamodule = set_up(tmp_path, on_error="skip")
        assert len(datamodule.test_data) == 4
        assert all(item.image is not None for item in datamodule.test_data)


NAMES = st.lists(st.sampled_from(["1", "2", "10", "a_b", "x (3)", "\u00e9", "e\u0301"]), min_size=1, unique=True)


@settings(max_examples=40, deadline=None)
@given(
    names=NAMES,
    masked=st.sets(st.integers(0, 6)),
    mask_dir=st.sampled_from(["masks", "test/abnormal/masks", "test/abnormal", "gt"]),
    ending=st.sampled_from(["_mask", "-seg", " label 2"]),
    nested=st.booleans(),
)
def test_every_layout_pairs_masks_by_name(tmp_path_factory, names, masked, mask_dir, ending, nested) -> None:
    names = [name for name in names if not (name == "e\u0301" and "\u00e9" in names)]  # the same letter twice
    root = tmp_path_factory.mktemp("layout")
    save_folder(root, abnormal=0)
    expected = {}
    for index, name in enumerate(names):
        folder = "p" if nested and index % 2 else "."
        save_image(root / "test" / "abnormal" / folder / f"{name}.png", index)
        expected[f"{name}.png"] = [f"{name}{ending}.png"] if index in masked else []
        if index in masked:
            save_mask(root / mask_dir / folder / f"{name}{ending}.png")
    if any(expected.values()):
        assert masks_by_image(set_up(root, mask_dir=mask_dir)) == expected


def test_chest_radiographs_with_some_boxes(real_data: Path) -> None:
    datamodule = MedicalFolder(real_data / "chest_nih", mask_dir="boxes", k_shot=32)
    datamodule.setup()
    assert datamodule.test_data.samples.label_index.value_counts().to_dict() == {0: 250, 1: 250}
    masks = masks_by_image(datamodule)
    boxed = [index for index, paths in enumerate(datamodule.test_data.samples.mask_path) if paths]
    assert sum(map(bool, masks.values())) == len(boxed) == 41
    assert all(Path(image).stem == Path(paths[0]).stem for image, paths in masks.items() if paths)
    assert all(datamodule.test_data[index].gt_mask.any() for index in boxed[::10])
