# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Shards of a plan: every row in one, and a folder keeps to its plan."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_mediclip.archive.plan import PARTS, PLAN, Plan

PLANNED = Plan(Path("out"), Path("in"), Path("model.ckpt"), "ab" * 32, files=10, shards=3, reading={})


@given(st.integers(1, 500), st.integers(1, 500))
def test_every_row_is_in_one_shard(files: int, shards: int) -> None:
    plan = replace(PLANNED, files=files, shards=min(files, shards))
    rows = [row for shard in range(plan.shards) for row in range(*plan.rows_of(shard))]
    assert rows == list(range(files))
    for shard in range(plan.shards):
        start, stop = plan.rows_of(shard)
        assert stop > start
        assert {plan.shard_of(row) for row in range(start, stop)} == {shard}


def test_it_is_read_as_it_was_written_and_knows_what_is_missing(tmp_path: Path) -> None:
    plan = replace(PLANNED, output=tmp_path, reading={"ANOMALIB_MEDICLIP_WINDOW": "lung"})
    assert Plan.read(tmp_path) is None
    plan.write()
    (tmp_path / PARTS).mkdir()
    assert Plan.read(tmp_path) == plan
    plan.part(1).touch()
    (tmp_path / PARTS / "unfinished.1.0000002.csv").touch()
    assert plan.unfinished() == [0, 2]
    plan.forget([0, 1])
    assert plan.unfinished() == [0, 1, 2]


@pytest.mark.parametrize("content", ["", "[]", '{"images": "in"}', '{"images": "a", "model": "b", "extra": 1}'])
def test_a_damaged_plan_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / PLAN).write_text(content)
    with pytest.raises(ValueError, match="is damaged: give another output folder"):
        Plan.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_hash": "cd" * 32}, "model"),
        ({"images": Path("other")}, "images in, not other"),
        ({"shards": 4}, "shards 3, not 4"),
        ({"reading": {"ANOMALIB_MEDICLIP_WINDOW": "lung"}}, "environment"),
    ],
)
def test_a_folder_of_something_else_is_refused(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=f"was begun with .*{words}"):
        PLANNED.check_same(replace(PLANNED, **change))
