# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Names of pictures: one for every image."""

import os
from pathlib import Path

import pytest

from anomalib_mediclip.prediction.naming import picture_name


def test_no_two_images_share_a_picture(tmp_path: Path) -> None:
    images = [
        *("p1/study/view.png", "p2/study/view.png", "yes/Y92.jpg", "yes/Y92.png"),
        *("a.png", "a.jpg", "a.jpg.png", "a.jpg.png.png", "a.PNG", "a.PNG.png"),
        *("x" * 251 + ending for ending in (".png", ".jpg", ".tif")),
        *("x" * 250 + f"{last}.jpg" for last in "ab"),
        os.fsdecode(b"\xe9.png"),
        os.fsdecode(b"\xe8.png"),
        "\n.png",
        "%0A.png",
        "\u00e9" * 125 + ".jpg",
        "\u00e9" * 125 + ".tif",
        ".a.png",
        "_a.png",
    ]
    names = {picture_name(tmp_path / image, tmp_path) for image in images}
    assert len(names) == len(images)
    for name in names:
        assert name.suffix == ".png"
        assert name.name.isprintable()
        assert not name.name.startswith(".")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()


def test_ordinary_names_are_kept(tmp_path: Path) -> None:
    for name in ("a/1.png", "a b/\u4e2d\u6587.png", "v1.2.png"):
        assert picture_name(tmp_path / name, tmp_path) == Path(name)


@pytest.mark.parametrize("root", [None, "data/lists"])
def test_images_outside_the_data_set_keep_their_folders(root: str | None) -> None:
    images = ["/data/train/p1/study1/view1.jpg", "/data/train/p2/study1/view1.jpg", "/data/valid/p1/study1/view1.jpg"]
    assert [picture_name(image, root).as_posix() for image in images] == [f"outside{image}.png" for image in images]


def test_a_folder_and_a_picture_of_one_name_get_different_ones(tmp_path: Path) -> None:
    assert (
        picture_name(tmp_path / "a.jpg.png" / "1.png", tmp_path).parts[0]
        != picture_name(tmp_path / "a.jpg", tmp_path).as_posix()
    )


def test_a_data_set_behind_a_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in ("real", "link"):
        assert picture_name(tmp_path / folder / "1.png", tmp_path / "link") == Path("1.png")
