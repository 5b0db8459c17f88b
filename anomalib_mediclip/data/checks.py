# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Check of images and masks before a training begins, which may take hours."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from anomalib_mediclip.data.samples import LISTED_IN_ERRORS, Sample
from anomalib_mediclip.io import read_header, read_image, read_mask

logger = logging.getLogger(__name__)

SECONDS_WITHOUT_PROGRESS_BAR = 3


def usable(samples: Sequence[Sample], name: str, skip: bool, decode: bool) -> list[Sample]:
    """Check that images can be read, and that masks fit them and show a lesion.

    Args:
        samples (Sequence[Sample]): Images with their masks.
        name (str): What they are, for messages: ``"test images"``.
        skip (bool): Whether to leave out samples that cannot be used, with a warning.
        decode (bool): Whether to decode every image; otherwise its header is read.

    Returns:
        list[Sample]: Samples that can be used, in the order given.

    Raises:
        ValueError: If some cannot be used and ``skip`` is false.
    """

    def reason_against(sample: Sample) -> str:
        try:
            size = read_header(sample.image).size
            if decode:
                read_image(sample.image)
            if sample.masks:
                read_mask(sample.masks, size, sample.image)
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    reasons = _mapped(reason_against, samples, f"checking {name}")
    faults = [reason for reason in reasons if reason]
    if faults:
        listed = "\n  ".join(faults[:LISTED_IN_ERRORS])
        more = f"\n  and {len(faults) - LISTED_IN_ERRORS} more" if len(faults) > LISTED_IN_ERRORS else ""
        found = f"{len(faults)} of {len(samples)} {name} cannot be used:\n  {listed}{more}"
        if not skip:
            msg = f"{found}\nCorrect these files, or give data.on_error=skip to leave them out."
            raise ValueError(msg)
        logger.warning("%s\nThey are left out (on_error: skip).", found)
    return [sample for sample, reason in zip(samples, reasons, strict=True) if not reason]


def _mapped(function: Callable[[Sample], str], samples: Sequence[Sample], title: str) -> list[str]:
    """Apply a function to all samples, with a progress bar if it takes long."""
    with ThreadPoolExecutor() as threads:  # decoders release the interpreter
        results = threads.map(function, samples)
        bar = tqdm(results, title, len(samples), leave=False, delay=SECONDS_WITHOUT_PROGRESS_BAR)
        return list(bar)
