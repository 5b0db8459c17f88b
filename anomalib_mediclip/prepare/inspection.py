# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading of every image and mask, once: hashes of what they hold, and whether they can be used."""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from anomalib_mediclip.data.samples import LISTED_IN_ERRORS
from anomalib_mediclip.io import hash_of_file, images_in, read_header, read_image, read_mask
from anomalib_mediclip.prepare.archive import Archive
from anomalib_mediclip.prepare.entries import Entry
from anomalib_mediclip.prepare.identity import Identity, read_identity
from anomalib_mediclip.prepare.similarity import perceptual_hash

logger = logging.getLogger(__name__)


class Inspection(NamedTuple):
    """What reading an image and its masks tells.

    Attributes:
        sha256 (str): Hash of the bytes of the image, 64 hexadecimal digits.
        mask_sha256 (tuple[str, ...]): Hashes of the bytes of its masks.
        perceptual (np.ndarray): Hash of what the image looks like, 256 bits.
        identity (Identity): Whom a DICOM file shows, empty for any other.
        fault (str): Why the image or a mask cannot be used, empty if they can.
    """

    sha256: str = ""
    mask_sha256: tuple[str, ...] = ()
    perceptual: npt.NDArray[np.bool_] = np.zeros(0, bool)
    identity: Identity = Identity()
    fault: str = ""


def inspect(archive: Archive, entries: Sequence[Entry], skip: bool) -> list[Inspection]:
    """Read all images and masks.

    Args:
        archive (Archive): Folder or zip file.
        entries (Sequence[Entry]): Images in it.
        skip (bool): Whether to go on past what cannot be used, with a warning.

    Returns:
        list[Inspection]: One for each image.

    Raises:
        ValueError: If an image or a mask cannot be used and ``skip`` is false; names the first ten.
    """
    threads = ThreadPoolExecutor()  # decoders release the interpreter
    try:
        results = threads.map(lambda entry: _inspect(archive, entry), entries)
        inspections = list(tqdm(results, "reading", len(entries), unit="image"))
    finally:
        threads.shutdown(cancel_futures=True)  # an interruption does not wait for the other images
    faults = [inspection.fault for inspection in inspections if inspection.fault]
    if faults:
        listed = "\n  ".join(faults[:LISTED_IN_ERRORS])
        more = f"\n  and {len(faults) - LISTED_IN_ERRORS} more" if len(faults) > LISTED_IN_ERRORS else ""
        found = f"{len(faults)} of {len(entries)} images cannot be used:\n  {listed}{more}"
        if not skip:
            msg = f"{found}\nCorrect these files, or give --on_error skip to leave them out. Nothing was copied."
            raise ValueError(msg)
        logger.warning("%s\nThey are left out (--on_error skip).", found)
    return inspections


def identify(archive: Archive, names: Iterable[PurePosixPath]) -> list[Identity]:
    """Read whom files show that are not used.

    Args:
        archive (Archive): Folder or zip file.
        names (Iterable[PurePosixPath]): Files in it.

    Returns:
        list[Identity]: Empty for files that do not say, or cannot be read.
    """
    identities = []
    for name in names:
        try:
            with archive.file(name) as path:
                identities.append(read_identity(path))
        except (OSError, ValueError):
            identities.append(Identity())
    return identities


def _inspect(archive: Archive, entry: Entry) -> Inspection:
    """Read an image and its masks."""
    names = (entry.name, *entry.masks)
    identity = Identity()
    with ExitStack() as stack:
        paths: list[Path] = []
        try:
            paths += [stack.enter_context(archive.file(name)) for name in names]
            identity = read_identity(paths[0])
            digests = [hash_of_file(path) for path in paths]
            slices = images_in(paths[0])
            image = read_image(slices[len(slices) // 2])  # the middle one of a volume
            if entry.masks and len(slices) == 1:
                read_mask(paths[1:], read_header(paths[0]).size, paths[0])
        except (OSError, ValueError) as error:
            return Inspection(identity=identity, fault=_named(archive, names, paths, error))
        return Inspection(digests[0], tuple(digests[1:]), perceptual_hash(image.mean(0).numpy()), identity)


def _named(archive: Archive, names: Sequence[PurePosixPath], paths: Sequence[Path], error: Exception) -> str:
    """Return the message of an error, with the names that files have in the archive."""
    message = str(error)
    for name, path in zip(names, paths, strict=False):
        message = message.replace(str(path), str(archive.path / name))
    return message
