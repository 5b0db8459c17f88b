# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Synthetic validation set: the support images, and anomalies painted on them."""

import copy
import math

import torch
from anomalib import TaskType
from anomalib.data import ImageItem
from anomalib.data.utils import LabelName
from pandas import DataFrame
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Image, Mask

from anomalib_mediclip.data.dataset import MedicalDataset
from anomalib_mediclip.data.listed_dataset import ListedDataset
from anomalib_mediclip.io import relative_names
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

MIN_PAINTED_IMAGES = 16


class SyntheticValidationDataset(ListedDataset):
    """The support set as it is, and again with painted anomalies.

    Every support image appears once as a normal image and in each of ``ceil(16 / k)`` rounds with anomalies that
    :class:`MedicalAnomalyGenerator` paints after the resize, so that there are at least 16 painted images. Thresholds
    and calibration need such a set, and no image of the test set may serve for it. The paintings depend on the seed,
    the round and the file name only, and differ from those of the training.

    Args:
        support (MedicalDataset): Support set; copied, so that the training keeps all of it.
        seed (int): Seed of the paintings.
    """

    def __init__(self, support: MedicalDataset, seed: int = 0) -> None:
        self._support = copy.deepcopy(support)
        self._seed = seed
        super().__init__(augmentations=support.augmentations)
        self.samples = _validation_samples(support.samples)
        self._names = relative_names(support.samples["image_path"])

    @property
    def augmentations(self) -> Transform | None:
        """Augmentations of the support images, applied before anything is painted."""
        return self._support.augmentations

    @augmentations.setter
    def augmentations(self, augmentations: Transform | None) -> None:
        self._support.augmentations = augmentations
        self._generator: MedicalAnomalyGenerator | None = None
        self._painted: dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def is_repeatable(self) -> bool:
        """Whether an item is the same each time."""
        return self._support.is_repeatable

    def __getitem__(self, index: int) -> ImageItem:
        """Return a support image, painted or not.

        Args:
            index (int): Position in ``samples``.

        Returns:
            ImageItem: Image of shape ``(3, H, W)``, float32 RGB in [0, 1]; ``gt_mask`` of shape ``(H, W)``, bool;
                ``gt_label``; path of the support image.
        """
        row = self.samples.iloc[index]
        if row.label_index == LabelName.NORMAL:
            image = self._support_image(row.support_index)
            mask = torch.zeros(image.shape[-2:])
        else:
            image, mask = self._paint(row.image_path, int(row.support_index), int(row.painting_round))
        return ImageItem(
            image=Image(image),
            gt_mask=Mask(mask),
            gt_label=torch.tensor(int(row.label_index)),
            image_path=row.image_path,
        )

    def _paint(self, path: str, support_index: int, painting_round: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a painted image ``(3, H, W)`` and its mask ``(1, H, W)``, painted at most once if the cache holds."""
        key = (path, painting_round)
        if key not in self._painted:
            # the prefix keeps these draws apart from those of the training, which uses the bare name
            name = f"validation/{self._names[path]}"
            generator = self._get_generator()
            painted = generator(self._support_image(support_index), names=[name], epoch=painting_round)
            if not self._support.caches:
                return painted
            self._painted[key] = painted
        image, mask = self._painted[key]
        return image.clone(), mask.clone()

    def _get_generator(self) -> MedicalAnomalyGenerator:
        """Return the generator, fed with the support images in their present size."""
        if self._generator is None:
            self._generator = MedicalAnomalyGenerator(seed=self._seed)
            self._generator.set_support_set([self._support_image(index) for index in range(len(self._support))])
        return self._generator

    def _support_image(self, index: int) -> torch.Tensor:
        """Return a support image ``(3, H, W)`` in its present size."""
        image: torch.Tensor = self._support[index].image  # type: ignore[assignment]  # every item has an image
        return image.as_subclass(torch.Tensor)


def _validation_samples(support: DataFrame) -> DataFrame:
    """List every support image once as normal (round 0) and once for each round of painting (from 1)."""
    rounds = math.ceil(MIN_PAINTED_IMAGES / len(support))
    samples = DataFrame(
        [
            {
                "image_path": image_path,
                "label": "abnormal" if painting_round else "normal",
                "label_index": int(painting_round > 0),
                "mask_path": (),
                "split": "val",
                "support_index": support_index,
                "painting_round": painting_round,
            }
            for support_index, image_path in enumerate(support["image_path"])
            for painting_round in range(rounds + 1)
        ],
    )
    samples.attrs["task"] = TaskType.SEGMENTATION
    return samples
