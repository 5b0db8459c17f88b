# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The authors' lists."""

import json
from pathlib import Path

import pytest

from anomalib_mediclip.data import BUSI, BrainMRI
from anomalib_mediclip.data.authors_lists import read_release
from tests.unit.data.small_datasets import save_image, save_mask

NORMAL = {"filename": "a.png", "label": 0, "clsname": "busi"}


def write_lists(root: Path, train: list[object], test: list[object]) -> None:
    (root / "samples").mkdir(parents=True, exist_ok=True)
    for name, entries in (("train", train), ("test", test)):
        lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
        (root / "samples" / f"{name}.json").write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b.png", "images/c.png", "images/d.png")):
        save_image(tmp_path / name, seed)
    save_mask(tmp_path / "masks/c.png")
    tumour = {"filename": "c.png", "label": 1, "clsname": "busi", "mask": "masks/c.png"}
    named = {"filename": "d.png", "label": "abnormal", "clsname": "busi", "mask": None}
    write_lists(tmp_path, [NORMAL, ""], [{**NORMAL, "filename": "b.png", "label": "normal"}, tumour, named])
    return tmp_path


@pytest.mark.parametrize("datamodule_class", [BUSI, BrainMRI])
def test_lists_replace_the_layout(root: Path, datamodule_class: type[BUSI | BrainMRI]) -> None:
    datamodule = datamodule_class(root, k_shot=1)
    datamodule.setup()
    assert datamodule.support_set == [root / "a.png"]
    test = {Path(item.image_path).name: item for item in datamodule.test_data}
    assert {name: bool(item.gt_label) for name, item in test.items()} == {"b.png": False, "c.png": True, "d.png": True}
    assert [name for name, item in test.items() if item.gt_mask.any()] == ["c.png"]


@pytest.mark.parametrize(
    "line",
    ["{broken", "[1, 2]", '{"label": 0}', '{"filename": "a.png", "label": 7}', '{"filename": 3, "label": 0}'],
)
def test_broken_line_is_named(root: Path, line: str) -> None:
    write_lists(root, [NORMAL], [NORMAL, NORMAL, line])
    with pytest.raises(ValueError, match=r"test\.json, line 3: .*expected a JSON object"):
        read_release(root)


def test_missing_files_are_listed(root: Path) -> None:
    write_lists(root, [NORMAL], [{**NORMAL, "filename": "x.png"}, {**NORMAL, "filename": "y.png"}])
    with pytest.raises(FileNotFoundError, match=r"2 files .*x\.png, .*y\.png"):
        read_release(root)


def test_abnormal_training_image_is_refused(root: Path) -> None:
    write_lists(root, [NORMAL, {"filename": "c.png", "label": 1}], [NORMAL])
    with pytest.raises(ValueError, match=r"train\.json lists abnormal images \(c\.png\)"):
        read_release(root)
