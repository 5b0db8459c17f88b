# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Where a training takes its anomalies from: painted afresh for each epoch, or painted and encoded once, or real ones.

The encoder is frozen. A number of painted views of each support image, encoded before the first step, therefore serve
all epochs, and a step needs the encoder no more. Real images with their true masks serve in the same way.
"""

import logging
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from anomalib.data import ImageBatch
from numpy.typing import NDArray

from anomalib_mediclip.models.components.feature_cache import FeatureCache, NoSpaceError, fill, progress_bar, readable
from anomalib_mediclip.seeds import number_of
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

logger = logging.getLogger(__name__)

SAMPLED = 4  # the loss of views is taken on every fourth pixel of a side, which is finer than any patch

Painted = tuple[list[torch.Tensor], torch.Tensor]
Encode = Callable[[torch.Tensor], list[torch.Tensor]]
Paint = Callable[[str, int], tuple[torch.Tensor, torch.Tensor]]


class FreshPaintings:
    """Paints and encodes every batch anew, as the official code does.

    Args:
        generator (MedicalAnomalyGenerator): Generator with its support set.
        encode (Callable): Returns the patch features of images ``(B, 3, H, W)``.
        names (Mapping[str, str]): Names of the support images, which decide what is painted, by path.
    """

    def __init__(self, generator: MedicalAnomalyGenerator, encode: Encode, names: Mapping[str, str]) -> None:
        self._generator, self._encode, self._names = generator, encode, names

    def __call__(self, batch: ImageBatch, images: torch.Tensor, epoch: int) -> Painted:
        """Paint a batch and encode it.

        Args:
            batch (ImageBatch): Batch of support images.
            images (torch.Tensor): The images, float in [0, 1], shape ``(B, 3, H, W)``.
            epoch (int): Number of the epoch, from 0.

        Returns:
            Painted: Patch features ``(B, C_j, H_j, W_j)``, one tensor for each tapped block, and masks ``(B, H, W)``,
            float32 in [0, 1].
        """
        names = [self._names[path] for path in batch.image_path or []]
        painted, masks = self._generator(images, names, epoch)
        return self._encode(painted), masks.squeeze(1)


class RealBatches:
    """Encodes batches of real images with their true masks, in place of painted ones.

    Args:
        encode (Callable): Returns the patch features of images ``(B, 3, H, W)``.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    def __call__(self, batch: ImageBatch, images: torch.Tensor, epoch: int) -> Painted:
        """Encode a batch as it is; see :meth:`FreshPaintings.__call__`."""
        del epoch
        return self._encode(images), torch.as_tensor(batch.gt_mask).float()


class PaintedViews:
    """Painted views of the support images, encoded once; each epoch takes one view of each image.

    A view is what the generator paints with the number of the view in place of the epoch. Every image goes through its
    views in an order of its own, and in a new one when all have been seen: one such round takes as many epochs as there
    are views. Orders depend on seed, name and epoch only. The views of one epoch of the first round are encoded
    together, so that features depend on nothing else either, and a short run encodes what it needs only.

    Args:
        names (Mapping[str, str]): Names of the support images by path.
        views (int): Number of views of each image.
        seed (int): Seed of the orders.
        cache (FeatureCache): Where the features are kept.
        epochs (range | None, optional): Epochs that will be trained. Defaults to ``None``: nobody knows.
    """

    def __init__(
        self, names: Mapping[str, str], views: int, seed: int, cache: FeatureCache, epochs: range | None = None
    ) -> None:
        self._names, self._views, self._seed = names, views, seed
        self._positions = {path: index for index, path in enumerate(names)}
        within_a_round = epochs is not None and epochs.stop <= views
        self._encoded_epochs = epochs if epochs is not None and within_a_round else range(views)
        self._table = cache.table(len(names) * len(self._encoded_epochs))
        self._epoch_of_view = {path: np.argsort(self._order(path, 0)).tolist() for path in names}

    def encode(
        self,
        paint: Paint,
        encode: Encode,
        with_progress: bool,
    ) -> None:
        """Paint and encode the views.

        Args:
            paint (Callable[[str, int], tuple[torch.Tensor, torch.Tensor]]): Returns a view of an image, by the path of
                the image and the number of the view: ``(3, H, W)`` in [0, 1], and its mask ``(H, W)``, float32.
            encode (Callable): Returns the patch features of images ``(B, 3, H, W)`` as they are to be kept: channels
                last, ``(B, H_j, W_j, C_j)``, because the adapters are fastest with these side by side in memory.
            with_progress (bool): Whether to show a progress bar.

        Raises:
            OSError: If there is no room for the features; says how many views would fit.
            FloatingPointError: If features are not finite.
        """
        paths, start = list(self._names), time.perf_counter()
        number = len(paths) * len(self._encoded_epochs)

        def painted(path: str, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
            image, mask = paint(path, self.view_of(path, epoch))
            return image, sampled(mask)

        with progress_bar(f"encoding {number} images" if with_progress else None, number) as progress:
            for index, epoch in enumerate(self._encoded_epochs):
                items = ((path, painted(path, epoch)) for path in paths)
                try:
                    fill(self._table, index * len(paths), items, encode, progress)
                except NoSpaceError as error:
                    raise OSError(self._cure(error)) from error
        logger.info(
            "Encoded %d views of each of %d images in %.0f s (%s).",
            len(self._encoded_epochs),
            len(paths),
            time.perf_counter() - start,
            readable(self._table.size),
        )

    def _cure(self, error: NoSpaceError) -> str:
        """Say how much room is needed, and what fits."""
        views = len(self._encoded_epochs)
        fitting = error.fitting(views)
        fewer = f"give --model.views {fitting}, or " if fitting else ""
        return (
            f"The features of {views} views of each of {len(self._names)} images take "
            f"{readable(error.needed)}, and {error.folder} has {readable(error.free)} free. Free some "
            f"space there, {fewer}give --model.views null, which keeps nothing."
        )

    def __call__(self, batch: ImageBatch, images: torch.Tensor, epoch: int) -> Painted:
        """Return the views of a batch that are due in an epoch; see :meth:`FreshPaintings.__call__`.

        The masks are those of every fourth pixel, ``(B, H / 4, W / 4)``; see :func:`sampled`.
        """
        rows = [self._row(path, self.view_of(path, epoch)) for path in batch.image_path or []]
        *features, masks = self._table.read(rows, images.device)
        return [block.float().movedim(-1, 1) for block in features], masks

    def view_of(self, path: str, epoch: int) -> int:
        """Tell which view of an image an epoch takes.

        Args:
            path (str): Path of the support image.
            epoch (int): Number of the epoch, from 0.

        Returns:
            int: Number of the view, from 0.
        """
        number, position = divmod(epoch, self._views)
        return int(self._order(path, number)[position])

    def _order(self, path: str, number: int) -> NDArray[np.int64]:
        """Return the order in which an image goes through its views in a round."""
        key = [self._seed, number_of(self._names[path]), number, self._views]
        return np.random.default_rng(key).permutation(self._views)

    def _row(self, path: str, view: int) -> int:
        """Return the row of a view, whose features were encoded with those of an epoch of the first round."""
        encoded = self._encoded_epochs.index(self._epoch_of_view[path][view])
        return encoded * len(self._names) + self._positions[path]


def sampled(mask: torch.Tensor) -> torch.Tensor:
    """Return every fourth pixel of a mask, where a map of a quarter of the side has its values (corners aligned).

    Args:
        mask (torch.Tensor): Mask ``(H, W)``.

    Returns:
        torch.Tensor: Mask ``(ceil(H / 4), ceil(W / 4))``.

    Example:
        >>> sampled(torch.arange(7.0).expand(4, 7))
        tensor([[0., 6.]])
    """
    rows, columns = (torch.linspace(0, side - 1, -(-side // SAMPLED)).round().long() for side in mask.shape)
    return mask[rows[:, None], columns]


def check_views(views: int | None) -> None:
    """Refuse a number of views with which nothing would be painted.

    Args:
        views (int | None): Option of the model.

    Raises:
        ValueError: If it is below 1, or not a whole number.
    """
    if views is not None and (isinstance(views, bool) or not isinstance(views, int) or views < 1):
        msg = f"views={views}: use a whole number from 1 upwards (50 by default), or null to paint afresh every epoch."
        raise ValueError(msg)
