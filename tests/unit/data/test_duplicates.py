# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images that two sets share."""

import shutil
from pathlib import Path

from anomalib_mediclip.data.duplicates import shared_images
from tests.unit.data.small_datasets import save_image


def test_copies_are_found_under_any_name_in_the_order_of_the_second_set(tmp_path: Path) -> None:
    first = [save_image(tmp_path / "one" / f"{seed}.png", seed) for seed in range(4)]
    second = [save_image(tmp_path / "two" / f"{seed}.png", seed) for seed in (7, 8)]
    for source, name in ((3, "a.png"), (1, "b.jpg"), (3, "c.png")):
        second.append(Path(shutil.copy(first[source], tmp_path / "two" / name)))
    assert shared_images(first, second) == [(first[3], second[2]), (first[1], second[3]), (first[3], second[4])]


def test_files_of_one_size_and_other_content_differ(tmp_path: Path) -> None:
    for name, content in (("a.png", b"1234"), ("b.png", b"1235")):
        (tmp_path / name).write_bytes(content)
    assert shared_images([tmp_path / "a.png"], [tmp_path / "b.png"]) == []


def test_empty_sets_share_nothing(tmp_path: Path) -> None:
    image = save_image(tmp_path / "1.png")
    assert shared_images([], [image]) == [] == shared_images([image], [])
