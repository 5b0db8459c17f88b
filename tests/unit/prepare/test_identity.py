# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Who is shown: patients are told apart, and nothing of them is seen."""

from pathlib import Path, PurePosixPath

import numpy as np

from anomalib_mediclip.prepare.identity import Identity, hide, hide_all, number_patients, read_identity
from tests.helpers.volumes import make_dicom
from tests.unit.data.small_datasets import save_image

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


def test_a_patient_is_known_by_number_else_by_name_and_birth_date(tmp_path: Path) -> None:
    def identity(**attributes: str) -> Identity:
        return read_identity(make_dicom(tmp_path / "x.dcm", PIXELS, **attributes))

    by_number = [identity(PatientID="7 ", PatientName=name) for name in ("Doe^John", "DOE^J")]
    assert by_number[0].patient == by_number[1].patient != ""
    assert identity(PatientID="8").patient != by_number[0].patient
    assert identity(PatientID="7", IssuerOfPatientID="other hospital").patient != by_number[0].patient
    by_name = identity(PatientID="", PatientName="Doe^John", PatientBirthDate="19500101")
    assert by_name.patient == identity(PatientID="", PatientName="Doe^John", PatientBirthDate="19500101").patient
    assert by_name.patient != identity(PatientID="", PatientName="Doe^John", PatientBirthDate="19600101").patient
    assert identity(PatientID="", PatientName="").patient == ""


def test_words_are_those_of_all_identifying_attributes(tmp_path: Path) -> None:
    path = make_dicom(
        tmp_path / "x.dcm",
        PIXELS,
        PatientName="Döe^John",
        PatientID="AB-12",
        AccessionNumber="999",
        SpecificCharacterSet="ISO_IR 100",
    )
    words = read_identity(path).words
    assert {"döe", "john", "döejohn", "ab", "12", "ab12", "19010203", "999"} <= words


def test_other_images_show_nobody(tmp_path: Path) -> None:
    assert read_identity(save_image(tmp_path / "1.png")) == Identity()


def test_names_lose_the_words_of_the_patient() -> None:
    words = frozenset({"doe", "john", "doejohn", "ab", "12", "ab12"})
    for name, hidden in (
        ("JOHN_DOE/CT.1.dcm", "P1_P1/CT.1.dcm"),
        ("DoeJohn/AB-12/IM0001", "P1/P1/IM0001"),
        ("series/12.dcm", "series/P1.dcm"),
        ("series/1.2.120.dcm", "series/1.2.120.dcm"),
    ):
        assert str(hide(PurePosixPath(name), words, "P1")) == hidden
    assert str(hide(PurePosixPath("DOE/1.dcm"), frozenset(), "P1")) == "DOE/1.dcm"


def test_texts_about_other_files_lose_the_words_of_all_patients() -> None:
    assert hide_all("Doe/12/notes of ROE.txt", {"doe": "P1", "roe": "P2", "12": "P2"}) == "P1/12/notes of P2.txt"


def test_numbers_follow_the_images_not_the_names() -> None:
    hashes = ["50", "40", "30", "20"]
    assert number_patients(["Doe", "Roe", "", "Doe"], hashes) == ["P1", "P2", "", "P1"]
    assert number_patients(["Zoe", "Abe", "", "Zoe"], hashes) == ["P1", "P2", "", "P1"]
    assert number_patients([str(number) for number in range(10)], [f"{n:02d}" for n in range(10)])[0] == "P01"
