# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Who is shown: what keeps the images of a patient together, and what must not be written anywhere in clear."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from anomalib_mediclip.io import kind_of, read_values

_WORD = re.compile(r"[^\W_]+")
_IDENTIFYING = ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "OtherPatientIDs")


class Identity(NamedTuple):
    """Who an image shows; empty for images that do not say.

    Attributes:
        patient (str): The same for all images of a patient. Never written to a file, log or message.
        words (frozenset[str]): Words of name, number, birth date and accession number, in lower case.
    """

    patient: str = ""
    words: frozenset[str] = frozenset()


def read_identity(path: Path) -> Identity:
    """Read whom an image shows.

    Args:
        path (Path): Image file.

    Returns:
        Identity: Of a DICOM file, by the patient's number, or by name and birth date where there is none. Empty without
            either, and for any other file.

    Raises:
        ImageFileError: If it is DICOM and its header is damaged.
    """
    if kind_of(path) != "dicom":
        return Identity()
    values = read_values(path, [*_IDENTIFYING, "IssuerOfPatientID"])
    named = f"{values['PatientName']}\0{values['PatientBirthDate']}" if values["PatientName"] else ""
    numbered = f"{values['PatientID']}\0{values['IssuerOfPatientID']}" if values["PatientID"] else ""
    words = frozenset(word for keyword in _IDENTIFYING for word in _words(values[keyword]))
    return Identity(numbered or named, words)


def hide(name: PurePosixPath, words: frozenset[str], pseudonym: str) -> PurePosixPath:
    """Replace every word of a name in an archive that is one of a patient's.

    Args:
        name (PurePosixPath): Name, such as ``"Doe_John/CT1.dcm"``.
        words (frozenset[str]): Words that must not be seen, in lower case.
        pseudonym (str): What takes their place.

    Returns:
        PurePosixPath: Name without them.

    Example:
        >>> str(hide(PurePosixPath("Doe_John/CT1.dcm"), frozenset({"doe", "john"}), "P1"))
        'P1_P1/CT1.dcm'
    """
    ending = name.suffix
    parts = [*name.parts[:-1], name.name.removesuffix(ending)]
    if not words:
        return name
    hidden = [_hide_in(part, words, pseudonym) for part in parts]
    return PurePosixPath(*hidden[:-1], hidden[-1] + ending)


def hide_all(text: str, words: Mapping[str, str], shortest: int = 3) -> str:
    """Replace the words of all patients in a text about a file that does not say whom it shows.

    Args:
        text (str): Name of the file, or a message about it.
        words (Mapping[str, str]): What takes the place of each word, see :func:`words_by_patient`.
        shortest (int, optional): Length below which a word is left, because it is most likely a number of something
            else. Defaults to ``3``.

    Returns:
        str: Text without them.

    Example:
        >>> hide_all("Doe_John/notes.txt", {"doe": "P1", "john": "P1"})
        'P1_P1/notes.txt'
    """

    def replacement(word: re.Match[str]) -> str:
        found = word.group()
        return words.get(found.casefold(), found) if len(found) >= shortest else found

    return _WORD.sub(replacement, text)


def number_patients(patients: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Give every patient a number that says nothing about who it is.

    The numbers follow the hashes of the images. Nothing is derived from names or numbers of patients, so that no list
    of candidates can be tried against the result, and there is no key to keep secret.

    Args:
        patients (Sequence[str]): Patient of each image, empty if unknown.
        hashes (Sequence[str]): Hash of the content of each image.

    Returns:
        list[str]: ``"P1"``, ``"P2"``, ... with leading zeros, empty where the patient is unknown.

    Example:
        >>> number_patients(["Doe", "", "Roe", "Doe"], ["7f", "00", "1a", "9b"])
        ['P2', '', 'P1', 'P2']
    """
    smallest: dict[str, str] = {}
    for patient, digest in zip(patients, hashes, strict=True):
        if patient:
            smallest[patient] = min(digest, smallest.get(patient, digest))
    ordered = sorted(smallest, key=lambda patient: (smallest[patient], patient))
    digits = len(str(len(ordered)))
    numbers = {patient: f"P{number:0{digits}d}" for number, patient in enumerate(ordered, start=1)}
    return [numbers.get(patient, "") for patient in patients]


def words_by_patient(identities: Iterable[Identity], pseudonyms: Iterable[str]) -> dict[str, str]:
    """Return what takes the place of each word that some patient's name, number or date has."""
    found: dict[str, set[str]] = defaultdict(set)
    for identity, pseudonym in zip(identities, pseudonyms, strict=True):
        for word in identity.words:
            found[word].add(pseudonym or "patient")
    return {word: min(names) for word, names in found.items()}


def _words(value: str) -> list[str]:
    """Return the words of a text, and the text without what separates them."""
    words = [word.casefold() for word in _WORD.findall(value)]
    return [*words, "".join(words)] if words else []


def _hide_in(part: str, words: frozenset[str], pseudonym: str) -> str:
    """Replace words in one part of a name."""
    if "".join(_WORD.findall(part)).casefold() in words:
        return pseudonym
    return _WORD.sub(lambda word: pseudonym if word.group().casefold() in words else word.group(), part)
