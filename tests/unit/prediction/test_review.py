# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``review.csv`` comes back as it was written, runs nothing in a spreadsheet, and says what is wrong with it."""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_mediclip.prediction.review import MARKS, Review, ReviewedImage, read_review, write_review

RUN = "0123456789abcdef" * 4
HEADER = "file,mark,comment,score,label,threshold,run\n"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12)
HOSTILE = st.sampled_from(
    ["=cmd|' /C calc'!A0", "'=1", "''", "+1", "-1", "@SUM(A1)", "\t=1", 'a"b,c\nd', "<img onerror>"]
)


def written(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "review.csv"
    path.write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


@given(files=st.lists(HOSTILE | TEXT, min_size=1, max_size=4), comment=HOSTILE | TEXT, threshold=st.floats(-1e6, 1e6))
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read_and_no_cell_is_a_formula(files: list[str], comment: str, threshold: float) -> None:
    images = tuple(ReviewedImage(file, MARKS[0], comment, score=-0.25, label="normal") for file in files)
    review = Review(images, threshold, RUN)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "review.csv"
        write_review(path, review)
        assert read_review(path) == review
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                assert not (row["file"] + " ").startswith(("=", "+", "-", "@", "\t"))
                assert not (row["comment"] + " ").startswith(("=", "+", "-", "@", "\t"))


def test_marks_are_those_of_marked_files_and_a_spreadsheet_may_add_its_signature(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"a.png,normal,,0.25,anomalous,0.123456789012345678,{RUN}",
        f"b.png,,,,unreadable,0.123456789012345678,{RUN}",
        f"a.png,,,0.25,anomalous,0.123456789012345678,{RUN}",
    )
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    review = read_review(path)
    assert review.marks == {"a.png": "normal"}
    assert (review.threshold, review.run, review.images[1].score) == (0.123456789012345678, RUN, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [f"a.png,normal,,0.2,,0.5,{RUN}", f"a.png,anomalous,,0.2,,0.5,{RUN}"],
            "marks a.png as normal and as anomalous",
        ),
        ([f"a.png,benign,,0.2,,0.5,{RUN}"], r"line 2: mark 'benign' is unknown. Write normal, anomalous, unsure"),
        (
            [f"a.png,,,0.2,,0.5,{RUN}", f"b.png,,,0.2,,0.6,{RUN}"],
            "line 3: threshold 0.6 is not that of the rows before",
        ),
        ([f"a.png,,,0.2,,0.5,{RUN}", f"b.png,,,0.2,,0.5,{'0' * 64}"], "line 3: run 0000"),
        (["a.png,,,0.2,,0.5,abc"], "line 2: run abc"),
        ([f"a.png,,,0.2,,nan,{RUN}"], "line 2: threshold 'nan' is no finite number"),
        ([f'a.png,,,"0,2",,0.5,{RUN}'], "line 2: score '0,2' is no finite number"),
        ([f"a.png,,,0.2,,0.5,{RUN},more"], "line 2: the row has more or fewer fields"),
        (["a.png,,"], "line 2: the row has more or fewer fields"),
        (['"a.png,,,0.2'], "is no CSV file"),
        ([], "has no rows"),
    ],
)
def test_a_damaged_review_is_refused_with_its_place(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_review(written(tmp_path, *rows))


def test_another_table_another_encoding_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no column file, mark, comment"):
        read_review(written(tmp_path, header="file;score;label;threshold;run\n"))
    path = tmp_path / "review.csv"
    path.write_bytes(HEADER.encode() + f"caf\xe9.png,,,0.2,,0.5,{RUN}\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not in UTF-8"):
        read_review(path)
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.csv"):
        read_review(tmp_path / "gone.csv")
