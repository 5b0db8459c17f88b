# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The steps from a folder or zip file to a :class:`MedicalFolder`: list, read, divide, name, copy, report."""

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.data.medical_folder import MedicalFolder
from anomalib_mediclip.folder_lock import only_process
from anomalib_mediclip.io import file_of
from anomalib_mediclip.prepare.archive import Archive, open_archive
from anomalib_mediclip.prepare.copying import Source, copy_files, find_missing
from anomalib_mediclip.prepare.entries import Listing, read_entries, require_normal
from anomalib_mediclip.prepare.identity import hide, hide_all, number_patients, words_by_patient
from anomalib_mediclip.prepare.inspection import Inspection, identify, inspect
from anomalib_mediclip.prepare.naming import name_targets
from anomalib_mediclip.prepare.report import DATA, MANIFEST, PAGE, PreparedImage, describe, write_manifest, write_page
from anomalib_mediclip.prepare.splits import draw_splits


def prepare(
    source: Path,
    target: Path,
    labels: Path | None = None,
    test_fraction: float = 0.5,
    seed: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
) -> dict[str, Any]:
    """Copy the images and masks of a folder or zip file into the folders of a :class:`MedicalFolder`.

    Files are copied unchanged. Patients, and images of the same bytes, are in the training or in the test, never in
    both. The same source, options and seed give the same files. A call that was interrupted is repeated to complete it.

    Args:
        source (Path): Folder or zip file.
        target (Path): Folder to write to.
        labels (Path | None, optional): Label table, see :mod:`anomalib_mediclip.prepare.label_table`. Defaults to
            ``None``: the folders of the source say the labels.
        test_fraction (float, optional): Part of the normal images to test on, from 0 to below 1. Defaults to ``0.5``.
        seed (int, optional): Seed of the draw. Defaults to ``0``.
        on_error (Literal["stop", "skip"], optional): Whether to stop at images or masks that cannot be used, or to
            leave them out. Defaults to ``"stop"``.

    Returns:
        dict[str, Any]: What is in ``report.json``, see :func:`anomalib_mediclip.prepare.report.describe`.

    Raises:
        FileNotFoundError: If the source, the label table or a listed file is missing.
        FileExistsError: If the target holds other files.
        ValueError: If the source, the label table or an option is wrong.
    """
    if not 0 <= test_fraction < 1:
        msg = f"test_fraction is {test_fraction}: give a number from 0 to below 1"
        raise ValueError(msg)
    if target.resolve().is_relative_to(source.resolve()):
        msg = f"the target {target} lies in the source {source}, so that copies would be images too: choose another one"
        raise ValueError(msg)
    with open_archive(source) as archive:
        listing = read_entries(archive, labels)
        inspections = inspect(archive, listing.entries, skip=on_error == "skip")
        images, sources, unused = _plan(archive, listing, inspections, test_fraction, seed)
        report = describe(images, {"layout": listing.layout, "seed": seed, "test_fraction": test_fraction}, unused)
        texts = {
            PAGE: write_page(report),
            DATA: json.dumps(report, indent=2, ensure_ascii=False) + "\n",
            MANIFEST: write_manifest(images),
        }
        with only_process(target, "prepares"):
            copy_files(archive, target, find_missing(target, sources, texts))
            _check(target, images)
            for name, text in texts.items():  # the manifest is last: where there is one, all files are there
                write_whole(target / name, text)
    return report


def _plan(
    archive: Archive, listing: Listing, inspections: Sequence[Inspection], test_fraction: float, seed: int
) -> tuple[list[PreparedImage], dict[str, Source], dict[str, str]]:
    """Decide where every file goes.

    Returns:
        tuple[list[PreparedImage], dict[str, Source], dict[str, str]]: Images in the order of the source; target -> file
            to copy; name of every other file -> why it is not used.
    """
    usable = [(e, i) for e, i in zip(listing.entries, inspections, strict=True) if not i.fault]
    entries = [entry._replace(patient=entry.patient or read.identity.patient) for entry, read in usable]
    read = [inspection for _, inspection in usable]
    require_normal(archive, listing.layout, entries)
    hashes = [inspection.sha256 for inspection in read]
    splits = draw_splits(entries, hashes, test_fraction, seed)
    patients = number_patients([entry.patient for entry in entries], hashes)
    shown = [
        hide(entry.name.relative_to(listing.root), inspection.identity.words, patient or "patient")
        for entry, inspection, patient in zip(entries, read, patients, strict=True)
    ]
    targets = name_targets(entries, shown, splits)
    sources: dict[str, Source] = {}
    images = []
    for entry, inspection, name, where, patient, split in zip(
        entries, read, shown, targets, patients, splits, strict=True
    ):
        digests = (inspection.sha256, *inspection.mask_sha256)
        for target, file, digest in zip((where.image, *where.masks), (entry.name, *entry.masks), digests, strict=True):
            sources[target] = Source(file, digest)
        images.append(
            PreparedImage(where, name, inspection.sha256, entry.is_abnormal, patient, split, inspection.perceptual)
        )
    return images, sources, _describe_unused(archive, listing, inspections, patients)


def _check(target: Path, images: Sequence[PreparedImage]) -> None:
    """Read the target as a training does, so that a name that means something there is found now.

    Raises:
        ValueError: If the training would see other images or masks.
    """
    pool, test = MedicalFolder(target).read_layout()
    found: dict[str, set[str]] = {}
    for sample in (*pool, *test):
        files = [file_of(path)[0].relative_to(target).as_posix() for path in (sample.image, *sample.masks)]
        found.setdefault(files[0], set()).update(files[1:])
    expected = {image.file: set(image.targets.masks) for image in images}
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        msg = (
            f"{len(wrong)} images would be taken for masks, or get the masks of others, because of their names: "
            f"{', '.join(wrong[:10])}. Rename them in the source, choose a new target and run the command again"
        )
        raise ValueError(msg)


def _describe_unused(
    archive: Archive, listing: Listing, inspections: Sequence[Inspection], patients: Sequence[str]
) -> dict[str, str]:
    """Name the files that are not used, without the words that identify patients.

    Most of them do not say whom they show, but they lie in folders that do.
    """
    numbers = iter(patients)
    pseudonyms = ["" if inspection.fault else next(numbers) for inspection in inspections]
    words = words_by_patient(
        [*(inspection.identity for inspection in inspections), *identify(archive, listing.unused)],
        [*pseudonyms, *[""] * len(listing.unused)],
    )
    start = f"{archive.path / listing.root}{os.sep}"
    faulty = {e.name: i.fault.replace(start, "") for e, i in zip(listing.entries, inspections, strict=True) if i.fault}
    return {
        hide_all(str(_below(name, listing.root)), words): hide_all(reason, words)
        for name, reason in (listing.unused | faulty).items()
    }


def _below(name: PurePosixPath, root: PurePosixPath) -> PurePosixPath:
    """Return a name relative to a folder, if it is below it."""
    return name.relative_to(root) if name.is_relative_to(root) else name
