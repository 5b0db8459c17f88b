# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``review.csv``: what a person decided about the images of a run, written by the review page and read by commands.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula and runs it. Such a file name or
comment is written with an apostrophe before it, and so is one that begins with an apostrophe; reading removes it.
"""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomalib_mediclip.atomic import written_beside
from anomalib_mediclip.prediction.table import append_rows, in_digits

COLUMNS = ("file", "mark", "comment", "score", "label", "threshold", "run")
MARKS = ("normal", "anomalous", "unsure")
APOSTROPHE = "'"
FORMULA = ("=", "+", "-", "@", "\t", "\n")  # what a spreadsheet may take for the beginning of a formula
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ReviewedImage:
    """A row of a review.

    Attributes:
        file (str): Path of the image, as in the table of predictions.
        mark (str): ``normal``, ``anomalous``, ``unsure``, or empty where nobody has decided.
        comment (str): What the person wrote.
        score (float | None): Calibrated score; None of an unreadable file.
        label (str): Label of the model, as in the table of predictions.
    """

    file: str
    mark: str = ""
    comment: str = ""
    score: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Review:
    """A review of a run.

    Attributes:
        images (tuple[ReviewedImage, ...]): All images of the run, marked or not.
        threshold (float): Threshold that the person chose, in the units of the scores.
        run (str): SHA-256 of the table of predictions, 64 hexadecimal digits.
    """

    images: tuple[ReviewedImage, ...]
    threshold: float
    run: str

    @property
    def marks(self) -> dict[str, str]:
        """Mark of every marked file: ``normal``, ``anomalous`` or ``unsure``."""
        return {image.file: image.mark for image in self.images if image.mark}


def read_review(path: str | Path) -> Review:
    """Read a review.

    Args:
        path (str | Path): ``review.csv``, as the review page exports it. A spreadsheet may have saved it, as CSV in
            UTF-8 with commas.

    Returns:
        Review: Review.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no review: columns or rows are missing, a mark or number is unknown, one file has two
            marks, or rows name two thresholds or two runs.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"no file {path} (absolute: {path.absolute()}): give the review.csv that the review page exported."
        raise FileNotFoundError(msg)
    images: list[ReviewedImage] = []
    thresholds: set[float] = set()
    runs: set[str] = set()
    for place, row in _rows_of(path):
        images.append(_image_of(row, place))
        thresholds.add(_number(row["threshold"], "threshold", place))
        runs.add(row["run"])
        if len(thresholds) > 1 or len(runs) > 1 or not SHA256.fullmatch(row["run"]):
            what = "threshold" if len(thresholds) > 1 else "run"
            msg = f"{place}: {what} {row[what]} is not that of the rows before, or is none. Export the review again."
            raise ValueError(msg)
    if not images:
        msg = f"{path} has no rows, so that it names no threshold. Export the review again."
        raise ValueError(msg)
    _check_marks(images, path)
    return Review(tuple(images), thresholds.pop(), runs.pop())


def write_review(path: str | Path, review: Review) -> None:
    """Write a review as the review page does.

    Args:
        path (str | Path): File, which is replaced if there is one.
        review (Review): Review.

    Raises:
        OSError: If it cannot be written.
    """
    rows = (
        (
            *(_escaped(image.file), image.mark, _escaped(image.comment)),
            *(in_digits(image.score), image.label, repr(review.threshold), review.run),
        )
        for image in review.images
    )
    with written_beside(path) as unfinished:
        append_rows(unfinished, [COLUMNS, *rows])


def _rows_of(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table by column, each with the words that say where it is."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                msg = (
                    f"{path} has no column {', '.join(missing)}. A review has the columns {','.join(COLUMNS)}, with "
                    "commas between them. Export it again, or save it as CSV with commas."
                )
                raise ValueError(msg)
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    msg = f"{place}: the row has more or fewer fields than the header. Export the review again."
                    raise ValueError(msg)
                yield place, row
    except UnicodeDecodeError as error:
        msg = f"{path} is not in UTF-8 ({error.reason}). Save it as CSV UTF-8, or export the review again."
        raise ValueError(msg) from error
    except csv.Error as error:
        msg = f"{path} is no CSV file ({error}). Export the review again."
        raise ValueError(msg) from error


def _image_of(row: dict[str, str], place: str) -> ReviewedImage:
    """Return the image of a row."""
    if row["mark"] not in ("", *MARKS):
        msg = f"{place}: mark {row['mark']!r} is unknown. Write {', '.join(MARKS)}, or nothing."
        raise ValueError(msg)
    score = _number(row["score"], "score", place) if row["score"] else None
    return ReviewedImage(_unescaped(row["file"]), row["mark"], _unescaped(row["comment"]), score, row["label"])


def _number(text: str, name: str, place: str) -> float:
    """Return a number of a row."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"{place}: {name} {text!r} is no finite number, such as 0.5."
        raise ValueError(msg)
    return value


def _check_marks(images: Sequence[ReviewedImage], path: Path) -> None:
    """Refuse a review with two marks for one file."""
    marks: dict[str, str] = {}
    for image in images:
        if image.mark and marks.setdefault(image.file, image.mark) != image.mark:
            msg = (
                f"{path} marks {image.file} as {marks[image.file]} and as {image.mark}. "
                "Leave one of the two rows, or export the review again."
            )
            raise ValueError(msg)


def _escaped(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return APOSTROPHE + text if text.startswith((*FORMULA, APOSTROPHE)) else text


def _unescaped(cell: str) -> str:
    """Return what was written in a cell."""
    return cell.removeprefix(APOSTROPHE)
