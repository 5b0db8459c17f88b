# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What a training knows of its support set."""

from typing import TYPE_CHECKING, Any, cast

import torch
from anomalib.data import ImageItem
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Mask

from anomalib_mediclip.data.auxiliary import RealAnomalies
from anomalib_mediclip.models.components.pre_processing import transform_of

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as TrainingHooks
else:
    TrainingHooks = object


LARGEST_SUPPORT = 128  # images, whose features take 0.4 GB with ViT-L/14; of more, evenly_chosen takes some


class SupportMethods(TrainingHooks):
    """Methods of a model that look at the images of its training set."""

    @property
    def training_set(self) -> Any:
        """Normal images of the training, in the order of their files: the support set."""
        real = self.real_anomalies
        return self._trained_on if real is None else real.support

    @property
    def real_anomalies(self) -> RealAnomalies | None:
        """Images with true masks to learn from in place of painted ones; None if the training has none."""
        return self._trained_on if isinstance(self._trained_on, RealAnomalies) else None

    @property
    def _trained_on(self) -> Any:
        return cast("DataLoader[Any]", self.trainer.train_dataloader).dataset

    @property
    def shows_progress(self) -> bool:
        """Whether long work within a training shows a progress bar."""
        return self.trainer.is_global_zero and self.trainer.progress_bar_callback is not None

    def support_image(self, index: int) -> torch.Tensor:
        """Return an image of the training set as the model gets it.

        Args:
            index (int): Position in the training set.

        Returns:
            torch.Tensor: Float RGB image ``(3, H, W)`` in [0, 1], on the CPU.
        """
        return self.transformed(self.training_set[index].image)

    def transformed(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image as the model gets it.

        Args:
            image (torch.Tensor): Float RGB image ``(3, H, W)`` in [0, 1], of any size.

        Returns:
            torch.Tensor: The image ``(3, H, W)`` of the model's size, in [0, 1].
        """
        transform = transform_of(self.pre_processor)
        return in_range(transform(image) if transform else image)

    def transformed_pair(self, item: ImageItem) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an image with its mask as the model gets them.

        Args:
            item (ImageItem): Item with ``image``, float RGB ``(3, H, W)`` in [0, 1], and ``gt_mask``, bool ``(H, W)``.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Image ``(3, H, W)`` in [0, 1] and mask ``(H, W)``, bool, of the model's
            size.
        """
        transform = transform_of(self.pre_processor)
        image, mask = item.image, Mask(item.gt_mask)
        if transform:
            image, mask = transform(image, mask)
        return in_range(image), mask.as_subclass(torch.Tensor)


def evenly_chosen(number: int, largest: int) -> range:
    """Choose positions of a list: all of them, or every second, third and so on where they are too many.

    Args:
        number (int): Length of the list, at least 1.
        largest (int): Largest number to choose.

    Returns:
        range: Positions.

    Example:
        >>> list(evenly_chosen(5, 2)), list(evenly_chosen(2, 5))
        ([0, 3], [0, 1])
    """
    return range(0, number, -(-number // largest))


def in_range(image: torch.Tensor | None) -> torch.Tensor:
    """Return a plain tensor in [0, 1]: some interpolations overshoot when they resize.

    Args:
        image (torch.Tensor | None): Image or batch.

    Returns:
        torch.Tensor: The same, clamped.
    """
    return torch.as_tensor(image).as_subclass(torch.Tensor).clamp(0, 1)
