# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Label tables: what they say, and what is wrong with them."""

from pathlib import Path, PurePosixPath

import pytest

from anomalib_mediclip.prepare.label_table import LabelRow, read_label_table

IMAGES = [PurePosixPath(f"top/{name}") for name in ("a.png", "b.png", "b_mask.png", "b_mask_2.png", "ct/1", "ct/2")]


def rows_of(tmp_path: Path, text: str, encoding: str = "utf-8") -> list[LabelRow]:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding=encoding)
    return read_label_table(path, IMAGES, PurePosixPath("top"))


def test_every_column_is_read(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        "File, label,mask,patient,split\na.png,Normal,,Doe,train\ntop/b.png,1,b_mask.png|b_mask_2.png, Roe ,TEST\n\n",
        "utf-8-sig",
    )
    assert rows == [
        LabelRow(PurePosixPath("top/a.png"), False, (), "Doe", "train"),
        LabelRow(PurePosixPath("top/b.png"), True, (IMAGES[2], IMAGES[3]), "Roe", "test"),
    ]


def test_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "file,label,patient\nct,abnormal,Doe\na.png,normal,\n")
    assert [(str(row.name), row.is_abnormal, row.patient) for row in rows] == [
        ("top/ct/1", True, "Doe"),
        ("top/ct/2", True, "Doe"),
        ("top/a.png", False, ""),
    ]


def test_columns_that_are_not_used_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows_of(tmp_path, "file,label,patients\na.png,normal,Doe\n")
    assert "the columns patients are not used" in caplog.text
    assert "Doe" not in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;label\na.png;normal\n", r"lacks the columns file, label: .* separated by commas; found file;label"),
        ("file,class\na.png,normal\n", r"lacks the columns label"),
        ("", r"is no csv file"),
        ("file,label\na.png,normal\nz.png,normal\n", r"line 3: there is no file 'z\.png'"),
        ("file,label\n../a.png,normal\n", r"line 2: there is no file '\.\./a\.png'"),
        ("file,label\na.png,healthy\n", r"line 2: label 'healthy' of a\.png: expected one of .*normal"),
        ("file,label\na.png,\n", r"line 2: label ''"),
        ("file,label\na.png,normal\ntop/a.png,normal\n", r"top/a\.png is listed twice"),
        ("file,label\nct,normal\nct/1,abnormal\n", r"top/ct/1 is listed twice"),
        ("file,label,mask\nb.png,abnormal,c.png\n", r"line 2: there is no file 'c\.png'"),
        ("file,label,mask\na.png,normal,b_mask.png\n", r"line 2: a\.png is normal and has a mask"),
        ("file,label,mask\nct,abnormal,b_mask.png\n", r"line 2: ct is a folder of 2 images"),
        ("file,label,mask\nb.png,1,b_mask.png\nb_mask.png,0,\n", r"b_mask\.png is listed as an image and as a mask"),
        ("file,label,split\na.png,normal,val\n", r"line 2: split 'val' of a\.png: expected one of train, test"),
        ("file,label,split\na.png,normal,\n", r"line 2: split ''"),
    ],
)
def test_what_is_wrong_is_said_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        rows_of(tmp_path, text)
    assert str(tmp_path / "labels.csv") in str(error.value)


def test_ten_faults_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 11: .*\n  and 15 more$"):
        rows_of(tmp_path, "file,label\n" + "".join(f"{number}.png,normal\n" for number in range(25)))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no label table .*nowhere"):
        read_label_table(tmp_path / "nowhere.csv", IMAGES, PurePosixPath())
