# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images of a folder."""

import os
from collections import Counter
from pathlib import Path

import pytest

from anomalib_mediclip.io import find_images, search


class TestFindImages:
    def test_natural_order_without_hidden_files(self, tmp_path: Path) -> None:
        names = [
            "b10.png",
            "B9.JPG",
            "a (2).png",
            "a (10).png",
            "sub/1.tif",
            ".hidden.png",
            ".cache/1.png",
            "notes.txt",
        ]
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
        assert found == ["a (2).png", "a (10).png", "B9.JPG", "b10.png", "sub/1.tif"]

    def test_search_below_a_hidden_folder(self, tmp_path: Path) -> None:
        (tmp_path / ".data").mkdir()
        (tmp_path / ".data" / "1.png").touch()
        assert len(find_images(tmp_path / ".data")) == 1

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            find_images(tmp_path / "nowhere")

    def test_file_instead_of_folder(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").touch()
        with pytest.raises(ValueError, match=r"1\.png is a file"):
            find_images(tmp_path / "1.png")

    def test_what_was_found_instead(self, tmp_path: Path) -> None:
        for name in ("1.heic", "2.heic", "list.txt"):
            (tmp_path / name).touch()
        with pytest.raises(ValueError, match=r"looked for DICOM, NIfTI, .*\.png.*found 2 \.heic, 1 \.txt"):
            find_images(tmp_path)

    def test_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no files"):
            find_images(tmp_path)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


class TestSearch:
    def test_endings_that_are_read_singly_are_found(self, tmp_path: Path) -> None:
        names = ["a.gif", "b.JP2", "c.avif", "d.jfif", "e.png"]
        touch(*(tmp_path / name for name in names))
        assert [path.name for path in find_images(tmp_path)] == names

    def test_nothing_else_is_skipped_in_silence(self, tmp_path: Path) -> None:
        touch(*(tmp_path / name for name in ("1.png", "1.pdf", "sub/2.PDF", "README", "x.txt")))
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
        expected = {".pdf": 2, "without extension": 1, ".txt": 1, "broken link": 1}
        assert search(tmp_path).skipped == Counter(expected)

    def test_files_of_the_system_are_left_out(self, tmp_path: Path) -> None:
        touch(*(tmp_path / name for name in ("1.png", "@eaDir/1.png", "__MACOSX/1.png", "Thumbs.db", ".x/1.png")))
        assert search(tmp_path) == ([tmp_path / "1.png"], Counter())

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        touch(tmp_path / "set" / "1.png", tmp_path / "elsewhere" / "1.png")
        (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set", target_is_directory=True)
        found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path / "set")]
        assert found == ["set/1.png", "set/linked/1.png"]

    def test_a_folder_that_is_left_out_is_known_by_whatever_path(self, tmp_path: Path) -> None:
        touch(tmp_path / "1.png", tmp_path / "results" / "2.png")
        (tmp_path / "alias").symlink_to(tmp_path / "results", target_is_directory=True)
        assert search(tmp_path, [tmp_path / "alias"]).images == [tmp_path / "1.png"]

    @pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="needs a folder that cannot be read")
    def test_an_unreadable_folder_is_counted(self, tmp_path: Path) -> None:
        touch(tmp_path / "1.png", tmp_path / "closed" / "2.png")
        (tmp_path / "closed").chmod(0)
        try:
            assert search(tmp_path).skipped == Counter({"unreadable folder": 1})
        finally:
            (tmp_path / "closed").chmod(0o700)
