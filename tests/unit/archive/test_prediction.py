# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Prediction of an archive in one process: every image once, after interruptions, changes and damaged files."""

import csv
import errno
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from anomalib_mediclip.archive import Workers, conclude, predict_archive, shard
from anomalib_mediclip.archive.collection import highest, read_table
from anomalib_mediclip.archive.plan import PARTS
from tests.helpers.archive import write_archive, write_checkpoint

HERE = Workers(cpus=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("trained"), sample_data)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return an archive of 40 images, two of them damaged."""
    return write_archive(tmp_path / "in", 40, 2, in_folder=10)


def test_every_image_has_a_row_and_the_highest_have_pictures(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    summary = predict_archive(checkpoint, images, tmp_path / "out", HERE, shards=6, top=3)
    table = pd.read_csv(summary.table)
    assert table["file"].tolist() == [str(path) for path in sorted(images.rglob("*.png"))]
    assert table["label"].value_counts()["unreadable"] == 2
    assert table.loc[table["label"] == "unreadable", "reason"].str.contains("cannot read").all()
    parquet = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert parquet["file"].tolist() == table["file"].tolist()
    assert parquet["score"].tolist() == pytest.approx(table["score"].tolist(), abs=0, nan_ok=True)
    page = summary.page.read_text()
    best = table.sort_values("score", ascending=False)["file"].tolist()
    assert page.index(best[0]) < page.index(best[1]) < page.index(best[2])
    assert best[3] not in page
    assert len(list(summary.page.parent.glob("*.png"))) == 3


def test_an_interrupted_run_is_completed_and_repeats_nothing(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    whole = predict_archive(checkpoint, images, tmp_path / "whole", HERE, shards=5, top=1).table.read_bytes()
    read = shard.read_image

    def interrupted(path: Path):
        if path.name == "000025.png":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(shard, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_archive(checkpoint, images, tmp_path / "out", HERE, shards=5, top=1)
    monkeypatch.setattr(shard, "read_image", read)
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / PARTS).iterdir()}
    assert sorted(parts) == ["0000000.csv", "0000001.csv", "0000002.csv"]
    summary = predict_archive(checkpoint, images, tmp_path / "out", HERE, top=1)
    conclude(summary)
    assert "16 images predicted in 2 shards (3 of 5 shards were finished before)" in capsys.readouterr().out
    assert summary.table.read_bytes() == whole
    assert (
        parts.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / PARTS).iterdir()}.items()
    )


def test_files_that_change_are_predicted_again(tmp_path: Path, images: Path, checkpoint: Path, caplog) -> None:
    predict_archive(checkpoint, images, tmp_path / "out", HERE, shards=8, top=1)
    changed, gone = images / "0000" / "000001.png", images / "0003" / "000039.png"
    changed.write_bytes((images / "0001" / "000010.png").read_bytes())
    gone.unlink()
    summary = predict_archive(checkpoint, images, tmp_path / "out", HERE, top=1)
    assert "2 files have changed or gone since they were listed" in caplog.text
    assert summary.shards == 2
    rows = {row["file"]: row for row in read_table(summary.table)}
    assert rows[str(changed)]["score"] == rows[str(images / "0001" / "000010.png")]["score"]
    assert rows[str(gone)]["label"] == "unreadable"
    assert predict_archive(checkpoint, images, tmp_path / "out", HERE, top=1).shards == 0


def test_two_processes_or_two_models_do_not_share_a_folder(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with FileLock(output / ".lock"), pytest.raises(FileExistsError, match="another process predicts into"):
        predict_archive(checkpoint, images, output, HERE)
    assert not (output / PARTS).exists()
    predict_archive(checkpoint, images, output, HERE, top=1)
    other = tmp_path / "other.ckpt"
    other.write_bytes(checkpoint.read_bytes() + b" ")
    with pytest.raises(ValueError, match="was begun with model"):
        predict_archive(other, images, output, HERE)


def test_a_full_disk_leaves_what_is_finished(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"

    def full(descriptor: int) -> None:
        if len(list((output / PARTS).glob("0*.csv"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard.os, "fsync", full)
    with pytest.raises(OSError, match=r"0000002.csv could not be written \(No space left on device\)"):
        predict_archive(checkpoint, images, output, HERE, shards=4)
    assert sorted(path.name for path in (output / PARTS).iterdir()) == ["0000000.csv", "0000001.csv"]
    monkeypatch.undo()
    assert predict_archive(checkpoint, images, output, HERE, top=1).shards == 2


def test_what_is_no_model_is_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no model"):
        predict_archive(tmp_path / "model.ckpt", images, tmp_path / "out", HERE)
    assert not (tmp_path / "out" / "plan.json").exists()


@pytest.mark.parametrize("wrong", [{"shards": 0}, {"top": -1}])
def test_numbers_without_sense_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"--(shards 0|top -1): give at least"):
        predict_archive(tmp_path / "model.ckpt", tmp_path, tmp_path / "out", HERE, **wrong)
    with pytest.raises(ValueError, match="--cpus 0: give at least 1"):
        Workers(cpus=0)


def test_all_anomalous_images_are_chosen_in_order(tmp_path: Path) -> None:
    table = tmp_path / "predictions.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "score", "label", "threshold", "reason"])
        writer.writerows(
            [["a", "0.4", "normal", "", ""], ["b", "0.6", "anomalous", "", ""], ["c", "", "unreadable", "", ""]]
        )
        writer.writerow(["d", "0.9", "anomalous", "", ""])
    assert [row["file"] for row in highest(table, "anomalous")] == ["d", "b"]
    assert [row["file"] for row in highest(table, 3)] == ["d", "b", "a"]
