# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The list of files: all of them once, in any piece, and what has changed since."""

import os
from pathlib import Path

import numpy as np
import pytest

from anomalib_mediclip.archive import manifest
from anomalib_mediclip.archive.manifest import (
    MANIFEST,
    Row,
    find_changed,
    read_rows,
    renew_rows,
    row_of,
    write_manifest,
)
from tests.helpers.volumes import make_dicom


def fill(root: Path, names: list[str]) -> list[Path]:
    """Write files that say by their name that they are images."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return sorted(root / name for name in names)


def test_every_file_is_listed_once_and_read_back_in_any_piece(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(manifest, "PIECE", 4)
    images = fill(tmp_path / "in", [f"{index % 3}/{index:02d}.png" for index in range(11)])
    output = tmp_path / "in" / "results"
    output.mkdir()
    fill(output, ["old.png"])
    assert write_manifest(tmp_path / "in", output) == 11
    rows = list(read_rows(output / MANIFEST))
    assert rows == [row_of(image) for image in images]
    for start in range(11):
        for stop in range(start, 12):
            assert list(read_rows(output / MANIFEST, start, stop)) == rows[start:stop]


def test_what_is_no_image_is_left_out_and_what_has_no_ending_is_looked_into(tmp_path: Path) -> None:
    fill(tmp_path, ["notes.txt", ".hidden.png", "@eaDir/1.png", "a.PNG", "scan.nii.gz"])
    make_dicom(tmp_path / "IM0001", np.zeros((4, 4), np.uint16))
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "out").mkdir()
    write_manifest(tmp_path, tmp_path / "out")
    assert [row.path.name for row in read_rows(tmp_path / "out" / MANIFEST)] == ["IM0001", "a.PNG", "scan.nii.gz"]


def test_a_name_that_is_no_text_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"r\xe9sum\xe9.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"image")
    write_manifest(tmp_path / "in", tmp_path)
    (row,) = read_rows(tmp_path / MANIFEST)
    assert row.path.name == name
    assert row.path.read_bytes() == b"image"


def test_files_that_changed_or_went_are_found_and_listed_anew(tmp_path: Path) -> None:
    images = fill(tmp_path / "in", [f"{index}.png" for index in range(6)])
    write_manifest(tmp_path / "in", tmp_path)
    assert find_changed(tmp_path / MANIFEST) == []
    images[1].write_bytes(b"longer than it was")
    images[4].unlink()
    assert find_changed(tmp_path / MANIFEST) == [1, 4]
    renew_rows(tmp_path / MANIFEST, [1, 4])
    rows = list(read_rows(tmp_path / MANIFEST))
    assert rows[1].size == len(b"longer than it was")
    assert rows[4] == Row(images[4], -1, 0)
    assert [row.path for row in rows] == images
    assert find_changed(tmp_path / MANIFEST) == []


def test_a_folder_without_images_leaves_no_list(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        write_manifest(tmp_path / "in", tmp_path)
    assert not (tmp_path / MANIFEST).exists()
    with pytest.raises(FileNotFoundError, match="check the path"):
        write_manifest(tmp_path / "missing", tmp_path)
