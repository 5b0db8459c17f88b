# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Which images a parity report compares on, and what it knows of them."""

import shutil

import numpy as np
import pytest

from anomalib_mediclip import MedicalFolder
from anomalib_mediclip.parity.images import ComparedImages, find_compared_images


def test_sub_folders_are_labels(sample_data) -> None:
    images = find_compared_images(None, sample_data / "test")
    assert len(images) == 40
    assert [path.parent.name == "abnormal" for path in images.paths] == images.labels.tolist()
    assert images.labels.sum() == 20


def test_any_other_folder_has_no_labels(sample_data, tmp_path) -> None:
    shutil.copytree(sample_data / "test" / "normal", tmp_path / "some")
    images = find_compared_images(None, tmp_path)
    assert (len(images), images.labels) == (20, None)


def test_a_data_module_gives_its_test_images_and_no_others(sample_data) -> None:
    data = MedicalFolder(sample_data, k_shot=4)
    images = find_compared_images(data, None)
    assert images.labels.sum() == 20
    assert {path.parent.parent.name for path in images.paths} == {"test"}
    assert not set(images.paths) & set(data.support_set)


def test_a_folder_goes_before_the_data_module(sample_data) -> None:
    images = find_compared_images(MedicalFolder(sample_data), sample_data / "test" / "abnormal")
    assert {path.parent.name for path in images.paths} == {"abnormal"}


def test_with_neither_the_cure_is_said() -> None:
    with pytest.raises(ValueError, match="--images FOLDER"):
        find_compared_images(None, None)


def test_thinning_keeps_the_shares_of_the_classes(sample_data) -> None:
    images = find_compared_images(None, sample_data / "test")
    thinned = images.thinned(8)
    assert (len(thinned), thinned.labels.sum()) == (8, 4)
    assert set(thinned.paths) < set(images.paths)
    assert images.thinned(None) is images.thinned(100) is images


def test_batches_hold_images_in_unit_range_and_the_last_may_be_smaller(sample_data) -> None:
    paths = sorted((sample_data / "test" / "normal").glob("*.png"))[:5]
    batches = list(ComparedImages(paths).batches(4, (40, 30)))
    assert [resized.shape for resized, _ in batches] == [(4, 3, 40, 30), (1, 3, 40, 30)]
    assert [len(originals) for _, originals in batches] == [4, 1]
    for resized, originals in batches:
        assert resized.dtype == originals[0].dtype == np.float32
        assert 0 <= resized.min() < resized.max() <= 1
