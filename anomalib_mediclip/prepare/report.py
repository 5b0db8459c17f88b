# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What is written beside the images: a manifest of the files, and a report of what was found."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_mediclip.prepare.label_table import SEPARATOR
from anomalib_mediclip.prepare.naming import TargetNames
from anomalib_mediclip.prepare.similarity import BITS, MAX_DISTANCE, similar_pairs

MANIFEST, PAGE, DATA = "manifest.csv", "report.md", "report.json"
COLUMNS = ("file", "source", "sha256", "label", "patient", "split", "mask")
LISTED = 50  # in the page; the data has all


class PreparedImage(NamedTuple):
    """An image of the prepared set.

    Attributes:
        targets (TargetNames): Where it and its masks are, relative to the target.
        source (PurePosixPath): Where it was, relative to the root of the source, without what identifies a patient.
        sha256 (str): Hash of its bytes.
        is_abnormal (bool): Whether it shows a lesion.
        patient (str): Pseudonym, empty if the patient is unknown.
        split (str): ``"train"`` or ``"test"``.
        perceptual (np.ndarray): Hash of what it looks like, 256 bits.
    """

    targets: TargetNames
    source: PurePosixPath
    sha256: str
    is_abnormal: bool
    patient: str
    split: str
    perceptual: npt.NDArray[np.bool_]

    @property
    def file(self) -> str:
        """Path of the image relative to the target."""
        return self.targets.image


def write_manifest(images: Sequence[PreparedImage]) -> str:
    """Return the manifest: a row for each image.

    Args:
        images (Sequence[PreparedImage]): Images in the order of their names.

    Returns:
        str: Table with the columns ``file``, ``source``, ``sha256``, ``label``, ``patient``, ``split`` and ``mask``;
            several masks are separated by ``|``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image in images:
        label = "abnormal" if image.is_abnormal else "normal"
        masks = SEPARATOR.join(image.targets.masks)
        writer.writerow([image.file, image.source, image.sha256, label, image.patient, image.split, masks])
    return text.getvalue()


def describe(images: Sequence[PreparedImage], settings: Mapping[str, Any], unused: Mapping[str, str]) -> dict[str, Any]:
    """Return the report as plain data.

    Args:
        images (Sequence[PreparedImage]): Images in the order of their names.
        settings (Mapping[str, Any]): How the set was made: layout, seed, test fraction.
        unused (Mapping[str, str]): Every other file of the source, and why it was not used.

    Returns:
        dict[str, Any]: ``settings``; ``counts``; ``duplicates``, groups of files of the same bytes;
            ``contradictory``, those with different labels; ``similar``, pairs of other files that look the same, unless
            they are known to show one patient, the nearest first; ``unused``.
    """
    copies: dict[str, list[PreparedImage]] = defaultdict(list)
    for image in images:
        copies[image.sha256].append(image)
    groups = [group for group in copies.values() if len(group) > 1]
    pairs = [
        {"first": a.file, "second": b.file, "distance": pair.distance, "splits": _both(a.split, b.split)}
        for pair in similar_pairs([image.perceptual for image in images])
        if _is_news(a := images[pair.first], b := images[pair.second])
    ]
    return {
        "settings": dict(settings),
        "counts": _counts(images),
        "duplicates": [[image.file for image in group] for group in groups],
        "contradictory": [[i.file for i in group] for group in groups if len({i.is_abnormal for i in group}) > 1],
        "similar": pairs,
        "unused": dict(unused),
    }


def _is_news(first: PreparedImage, second: PreparedImage) -> bool:
    """Tell whether it matters that two images look the same: copies and images of one patient are together anyway."""
    return first.sha256 != second.sha256 and not (first.patient and first.patient == second.patient)


def _counts(images: Sequence[PreparedImage]) -> dict[str, int]:
    """Count images, masks and patients."""
    folders = Counter(image.file.rpartition("/")[0] for image in images)
    return {
        "train normal": folders["train/normal"],
        "test normal": folders["test/normal"],
        "test abnormal": folders["test/abnormal"],
        "abnormal with masks": sum(bool(image.targets.masks) for image in images),
        "masks": sum(len(image.targets.masks) for image in images),
        "patients": len({image.patient for image in images if image.patient}),
        "images without a patient": sum(not image.patient for image in images),
    }


def _both(first: str, second: str) -> str:
    """Name the split of two images, or both."""
    return first if first == second else "train and test"


def across(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the pairs that look the same of which one is trained on and the other one tested.

    Args:
        report (Mapping[str, Any]): What :func:`describe` returned.

    Returns:
        list[dict[str, Any]]: Some of ``report["similar"]``.
    """
    return [pair for pair in report["similar"] if pair["splits"] == "train and test"]


def write_page(report: Mapping[str, Any]) -> str:
    """Return the report as a page in Markdown.

    Args:
        report (Mapping[str, Any]): What :func:`describe` returned.

    Returns:
        str: Page.
    """
    spanning = across(report)
    near = [pair for pair in report["similar"] if pair not in spanning]
    reasons = Counter(report["unused"].values())
    lines = ["# Prepared images", ""]
    lines += [f"* {name}: {value}" for name, value in (report["settings"] | report["counts"]).items()]
    lines += [
        "",
        "`manifest.csv` lists every image: source, SHA-256, label, patient (a pseudonym), split and masks.",
        "",
    ]
    lines += ["## Copies", "", "Files of the same bytes. They are in the same split.", ""]
    lines += _listed([" = ".join(files) for files in report["duplicates"]])
    lines += ["### Copies with different labels", ""]
    lines += _listed([" = ".join(files) for files in report["contradictory"]])
    lines += ["## Images that look the same", ""]
    lines += [
        f"Perceptual hashes that differ in at most {MAX_DISTANCE} of {BITS} bits: saved again, resized, neighbours"
    ]
    lines += ["of one recording. They are not moved, because they may also be different images.", ""]
    lines += [f"### One is trained on, the other one is tested ({len(spanning)})", ""]
    lines += _listed([_pair(pair) for pair in spanning])
    lines += [f"### In the same split ({len(near)})", ""]
    lines += _listed([_pair(pair) for pair in near])
    lines += ["## Files that were not used", ""]
    lines += [f"* {reason}: {count}" for reason, count in reasons.most_common(LISTED)] or ["None."]
    lines += ["", "`report.json` has all pairs and the names of these files."]
    return "\n".join(lines) + "\n"


def summarise(report: Mapping[str, Any], target: Path) -> str:
    """Say in a few lines what was made, and what to look at.

    Args:
        report (Mapping[str, Any]): What :func:`describe` returned.
        target (Path): Folder of the prepared set.

    Returns:
        str: Lines for the screen.
    """
    counts = report["counts"]
    made = (
        f"{target}: {counts['train normal']} normal images to train on; test {counts['test normal']} normal, "
        f"{counts['test abnormal']} abnormal, {counts['abnormal with masks']} with masks"
    )
    found = (
        f"{len(report['duplicates'])} groups of copies, {len(report['similar'])} pairs of images that look the same, "
        f"{len(report['unused'])} files not used: see {target / PAGE}"
    )
    lines = [made, found]
    if report["contradictory"]:
        lines.append(f"WARNING: {len(report['contradictory'])} images are there as normal and as abnormal")
    if spanning := across(report):
        lines.append(f"WARNING: {len(spanning)} pairs of images that look the same are in training and test")
    if counts["patients"] and counts["images without a patient"]:
        lines.append(f"WARNING: the patient of {counts['images without a patient']} images is unknown")
    return "\n".join(lines)


def _pair(pair: Mapping[str, Any]) -> str:
    return f"{pair['first']} and {pair['second']} ({pair['distance']} bits)"


def _listed(items: Sequence[str]) -> list[str]:
    """Return a list in Markdown, cut at ``LISTED`` items."""
    more = [f"* and {len(items) - LISTED} more"] if len(items) > LISTED else []
    return [*(f"* {item}" for item in items[:LISTED]), *more, ""] if items else ["None.", ""]
