# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Which slices of a volume show a lesion: those in which its mask has one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from anomalib_mediclip.data.samples import Sample, listed
from anomalib_mediclip.io import ImageFileError, check_same_grid, file_of, has_values, is_slice, kind_of

logger = logging.getLogger(__name__)


def abnormal_samples(images: Sequence[Path], masks: Mapping[Path, tuple[Path, ...]]) -> list[Sample]:
    """Label the images of a folder of abnormal images.

    An image is abnormal. A slice is abnormal if its mask shows a lesion in it, and normal if not. The slices of a
    volume without a mask are all abnormal, with a warning.

    Args:
        images (Sequence[Path]): Images and slices.
        masks (Mapping[Path, tuple[Path, ...]]): Masks of each; those without a mask may be missing.

    Returns:
        list[Sample]: Samples in the order given.

    Raises:
        ImageFileError: If a NIfTI mask does not lie on the voxels of its image.
    """
    pairs = {(file_of(image)[0], file_of(mask)[0]) for image in images for mask in masks.get(image, ())}
    for image, mask in sorted(pairs):
        if kind_of(image) == kind_of(mask) == "nifti":
            check_same_grid(image, mask)
    without = dict.fromkeys(file_of(image)[0] for image in images if is_slice(image) and not masks.get(image))
    if without:
        logger.warning(
            "%d volumes of abnormal images have no mask (%s): all their slices count as anomalous, also those without "
            "a lesion. Add masks, or keep the slices with lesions only.",
            len(without),
            listed(list(without)),
        )
    return [_sample(image, masks.get(image, ())) for image in images]


def _sample(image: Path, masks: tuple[Path, ...]) -> Sample:
    """Label an image, or a slice by its masks."""
    try:
        shown = tuple(mask for mask in masks if not is_slice(mask) or has_values(mask))
    except ImageFileError:  # whoever checks the masks says what is wrong with it
        return Sample(image, True, masks)
    return Sample(image, bool(shown) or not masks, shown)
