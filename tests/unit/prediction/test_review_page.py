# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""When the review page and the table of a test are written, and what lies beside the page."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import ImageItem
from anomalib.engine import Engine
from lightning import Trainer
from PIL import Image

from anomalib_mediclip import MedicalFolder
from anomalib_mediclip.prediction.review_page import write_page
from anomalib_mediclip.prediction.review_pictures import write_layers
from tests.helpers.brightness import Brightness


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_test_has_table_and_page_where_it_has_pictures(tmp_path: Path, sample_data: Path) -> None:
    for is_shown in (True, False):
        engine = Engine(default_root_dir=tmp_path / str(is_shown), accelerator="cpu", logger=False)
        engine.test(Brightness(visualizer=is_shown), datamodule=MedicalFolder(sample_data, k_shot=2))
        written = files_of(Path(engine.trainer.default_root_dir))
        assert ("index.html" in written, "predictions.csv" in written) == (is_shown, is_shown)
        assert len([name for name in written if name.endswith("_true.svg")]) == 20 * is_shown
        assert not [name for name in written if name.endswith(".jsonl")]


def test_a_second_test_in_a_folder_leaves_the_first_one_as_it_is(
    tmp_path: Path, sample_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def test() -> None:
        trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
        trainer.test(Brightness((32, 32), visualizer=True), datamodule=MedicalFolder(sample_data, k_shot=2))

    test()
    first = files_of(tmp_path)
    (tmp_path / "predictions.csv").write_text("of another run")
    with caplog.at_level(logging.WARNING):
        test()
    assert "predictions.csv holds the predictions of another run" in caplog.text
    assert files_of(tmp_path) == first | {"predictions.csv": b"of another run"}


def test_layers_keep_values_and_places(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 200, dtype=np.float32)[None].repeat(100, axis=0)
    mask = torch.zeros(100, 200, dtype=torch.bool)
    mask[20:40, 50:150] = True
    Image.new("RGB", (2000, 1000), (90, 20, 20)).save(tmp_path / "large.png")
    item = ImageItem(
        image=torch.zeros(3, 100, 200),
        image_path=str(tmp_path / "large.png"),
        anomaly_map=torch.from_numpy(ramp),
        pred_mask=mask,
        gt_mask=torch.zeros(100, 200, dtype=torch.bool),
    )
    assert write_layers(item, tmp_path / "000000") == (2000, 1000, ("map", "predicted"))  # no outline of nothing
    with Image.open(tmp_path / "000000_map.jpg") as picture:
        assert picture.mode == "L"
        assert np.abs(np.asarray(picture) / 255 - ramp).max() < 0.012
    for ending, size in (("", (1024, 512)), ("_thumbnail", (160, 80))):
        with Image.open(tmp_path / f"000000{ending}.jpg") as picture:
            assert picture.size == size
            assert np.abs(np.asarray(picture).astype(int) - [90, 20, 20]).max() < 8
    drawing = (tmp_path / "000000_predicted.svg").read_text()
    assert 'viewBox="0 0 200 100"' in drawing
    assert 'd="M50 20L50 39L149 39L149 20Z"' in drawing


def test_rows_of_several_processes_are_in_the_order_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("file\n")
    for rank, names in enumerate((["1.png", "3.png"], ["2.png", "10.png"])):
        (tmp_path / f"{rank}.jsonl").write_text("".join(json.dumps([name]) + "\n" for name in names))
    page = tmp_path / "index.html"
    write_page(page, "<Model>", 0.5, tmp_path / "predictions.csv", [tmp_path / "0.jsonl", tmp_path / "1.jsonl"])
    images = json.loads(page.read_text().split('id="images">')[1].split("</script>")[0])
    assert images == [["1.png"], ["2.png"], ["3.png"], ["10.png"]]
    assert "<title>Review of &lt;Model&gt;</title>" in page.read_text()
