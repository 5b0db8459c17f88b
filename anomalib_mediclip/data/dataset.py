# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Data set of images read at their full depth."""

import copy
import os
from typing import Any

import torch
from anomalib import TaskType
from anomalib.data import ImageItem
from pandas import DataFrame
from torch.utils.data import Subset
from torchvision.transforms.v2 import Compose, Resize, Transform
from torchvision.tv_tensors import Image, Mask

from anomalib_mediclip.data.listed_dataset import ListedDataset
from anomalib_mediclip.io import read_image, read_mask


class MedicalDataset(ListedDataset):
    """Images listed in a data frame.

    In a set with masks (task segmentation) every item has a ``gt_mask``. It is zero for a normal image, and also for an
    abnormal image without a mask: an abnormal item with a zero mask means that the location of the lesion is unknown.
    In a set without masks (task classification) ``gt_mask`` is None.

    Args:
        samples (DataFrame): Columns ``image_path``, ``label``, ``label_index`` (0 normal, 1 abnormal), ``mask_path``
            (a tuple or list of paths, or None) and ``split``. The task is taken from ``samples.attrs["task"]``;
            without it, it is segmentation if any image has a mask. Items hand several mask paths on as one string,
            joined by ``os.pathsep``.
        cache (bool): Keep the decoded and resized items in memory, as long as the augmentations are deterministic
            (None, a ``Resize`` or a ``Compose`` of them). Meant for support sets.
        augmentations (Transform | None): Applied to the image and its mask.
    """

    def __init__(self, samples: DataFrame, cache: bool = False, augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        task = samples.attrs.get("task")
        self.samples = samples
        self.samples.attrs["task"] = task or (
            TaskType.SEGMENTATION if samples["mask_path"].map(bool).any() else TaskType.CLASSIFICATION
        )
        self.cache = cache

    @property
    def augmentations(self) -> Transform | None:
        """Augmentations of the items; setting them empties the cache."""
        return self._augmentations

    @augmentations.setter
    def augmentations(self, augmentations: Transform | None) -> None:
        self._augmentations = augmentations
        self._cached_items: dict[str, ImageItem] = {}

    @property
    def is_repeatable(self) -> bool:
        """Whether an item is the same each time."""
        return _is_deterministic(self.augmentations)

    @property
    def caches(self) -> bool:
        """Whether items are kept: only if that is wanted, and they are the same each time."""
        return self.cache and self.is_repeatable

    def __getitem__(self, index: int) -> ImageItem:
        """Return an item that shares no memory with the cache.

        Args:
            index (int): Position in ``samples``.

        Returns:
            ImageItem: Image of shape ``(3, H, W)``, float32 RGB in [0, 1]; ``gt_mask`` of shape ``(H, W)``, bool, or
                None; ``gt_label``; paths.
        """
        path = self.samples.iloc[index].image_path
        if not self.caches:
            return self._load(index)
        if path not in self._cached_items:
            self._cached_items[path] = self._load(index)
        return copy.deepcopy(self._cached_items[path])

    def _load(self, index: int) -> ImageItem:
        """Read and augment an image with its mask."""
        row = self.samples.iloc[index]
        mask_paths = tuple(row.mask_path or ())
        image, gt_mask = Image(read_image(row.image_path)), None
        if self.task == TaskType.SEGMENTATION:
            size = (image.shape[-2], image.shape[-1])
            gt_mask = Mask(read_mask(mask_paths, size, row.image_path) if mask_paths else torch.zeros(size))
        if self.augmentations:
            augmented = self.augmentations(image) if gt_mask is None else self.augmentations(image, gt_mask)
            image, gt_mask = (augmented, None) if gt_mask is None else augmented
        return ImageItem(
            image=Image(image.clamp(0, 1)),  # interpolation may overshoot
            gt_mask=gt_mask,
            gt_label=torch.tensor(int(row.label_index)),
            image_path=row.image_path,
            mask_path=os.pathsep.join(map(str, mask_paths)) or None,
        )


def _is_deterministic(transform: Transform | None) -> bool:
    """Tell whether a transform gives the same result each time."""
    if isinstance(transform, Compose):
        return all(_is_deterministic(part) for part in transform.transforms)
    return transform is None or isinstance(transform, Resize)


def image_paths(dataset: Any) -> list[str]:
    """Return the paths of the images of a data set, without reading them where it has a list.

    Args:
        dataset (Any): Data set of anomalib, a ``Subset`` of one, or any other of such items.

    Returns:
        list[str]: Paths in the order of the items.

    Raises:
        ValueError: If an item has no path.
    """
    if hasattr(dataset, "samples"):
        return list(dataset.samples["image_path"])
    if isinstance(dataset, Subset):
        paths = image_paths(dataset.dataset)
        return [paths[index] for index in dataset.indices]
    listed = [dataset[index].image_path for index in range(len(dataset))]
    if not all(listed):
        msg = "An image of the training set has no image_path: its path decides which anomaly is painted on it."
        raise ValueError(msg)
    return listed
