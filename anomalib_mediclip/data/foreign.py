# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Data sets of anomalib, such as those of its ``Folder``, read as this package reads images and masks."""

import logging
from typing import Any

from anomalib.data import AnomalibDataset

from anomalib_mediclip.data.dataset import MedicalDataset
from anomalib_mediclip.data.synthetic_validation import SyntheticValidationDataset
from anomalib_mediclip.io import read_header

logger = logging.getLogger(__name__)

MAX_INSPECTED_IMAGES = 32


class AdoptedDataset(MedicalDataset):
    """Images, masks and augmentations of another data set.

    Args:
        dataset (AnomalibDataset): Data set; kept, because the synthetic one of anomalib removes its images with itself.
    """

    def __init__(self, dataset: AnomalibDataset) -> None:
        samples = dataset.samples.copy()
        samples["mask_path"] = [(path,) if path else () for path in samples["mask_path"]]
        samples.attrs["task"] = dataset.task
        super().__init__(samples, augmentations=dataset.augmentations)
        self.adopted = dataset


def read_as_ours(datamodule: Any) -> None:
    """Replace the data sets of a data module that would saturate deep images, and show turned ones as stored.

    A data set with a way of its own to read images is left as it is, with a warning if it has such images.

    Args:
        datamodule (Any): Data module that has been set up.
    """
    for name in ("train_data", "val_data", "test_data"):
        dataset = getattr(datamodule, name, None)
        if not isinstance(dataset, AnomalibDataset):
            continue
        if type(dataset).__getitem__ is AnomalibDataset.__getitem__:
            setattr(datamodule, name, AdoptedDataset(dataset))
        elif not isinstance(dataset, MedicalDataset | SyntheticValidationDataset):
            _warn_of_special_images(dataset)


def _warn_of_special_images(dataset: AnomalibDataset) -> None:
    """Warn if the first images of a data set are not read rightly by ``convert("RGB")``."""
    paths = dataset.samples["image_path"][:MAX_INSPECTED_IMAGES]
    special = [path for path in paths if not read_header(path).is_plain]
    if special:
        logger.warning(
            "%s reads images itself, and some have more than 8 bits, transparent pixels or an EXIF orientation (%s): "
            "check that it reads them rightly, or use MedicalFolder.",
            type(dataset).__name__,
            special[0],
        )
