# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images that are trained on and tested on."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from anomalib_mediclip.io import content_of, file_of

logger = logging.getLogger(__name__)


def warn_of_duplicates(support: Sequence[Path], test: Sequence[Path]) -> None:
    """Warn of files that are in both sets under whatever name.

    Args:
        support (Sequence[Path]): Images of the support set.
        test (Sequence[Path]): Images of the test set.
    """
    by_content = {content_hash(path): path for path in support}
    sizes = {_size(path) for path in support}
    # only files of the same size can be equal, so that a large test set need not be read
    candidates = [path for path in test if _size(path) in sizes]
    pairs = [(by_content[digest], path) for path in candidates if (digest := content_hash(path)) in by_content]
    if pairs:
        listed = "; ".join(f"{trained} = {tested}" for trained, tested in pairs)
        logger.warning("images of the support set are test images too (%s): the test score is optimistic", listed)


def _size(path: Path) -> int:
    """Return the size of the file of an image."""
    return file_of(path)[0].stat().st_size


def content_hash(path: str | Path) -> bytes:
    """Return the SHA-256 of the content of a file, or of a slice.

    Args:
        path (str | Path): Image file, or slice of a volume.

    Returns:
        bytes: 32 bytes.
    """
    return hashlib.sha256(content_of(path)).digest()
