# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What a training computes with its frozen encoder once, and reads from then on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, InferenceBatch
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_mediclip.data.dataset import image_paths
from anomalib_mediclip.models.components.feature_cache import (
    CACHE_LIMIT,
    ENCODED_AT_ONCE,
    FeatureCache,
    FeatureTable,
    fill,
    progress_bar,
)
from anomalib_mediclip.models.components.support_methods import SupportMethods, evenly_chosen


class FeatureMethods(SupportMethods):
    """Methods of a model around a frozen encoder that concern features which are computed once.

    :class:`~anomalib_mediclip.models.components.feature_cache.FeatureRelease` frees them when the training ends.
    """

    model: Any  # nn.Module with a ``vision_encoder`` and a ``head``
    _feature_cache: FeatureCache | None = None
    _support_table: FeatureTable | None = None
    _support_rows: dict[str, int] = {}  # noqa: RUF012  # replaced, never changed
    _validation_features: dict[int, list[torch.Tensor]] = {}  # noqa: RUF012  # replaced by forget_features
    _repeats_validation: bool = False

    @property
    def feature_cache(self) -> FeatureCache:
        """Room for features of this training, in memory and in the folder of the run."""
        if self._feature_cache is None:
            folder = Path(self.trainer.default_root_dir)
            self._feature_cache = FeatureCache(folder, self.hparams.get("cache_limit", CACHE_LIMIT))
        return self._feature_cache

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Extract patch features before the first step, as a step would.

        Args:
            images (torch.Tensor): Images ``(B, 3, H, W)`` in [0, 1], on any device.

        Returns:
            list[torch.Tensor]: Patch features, float32, on the model's device.
        """
        with self.trainer.precision_plugin.forward_context():
            features: list[torch.Tensor] = self.model.vision_encoder(images.to(self.device))
        return features

    @property
    def repeats_support_set(self) -> bool:
        """Whether the images of the training set are the same in every epoch: augmentations may change them."""
        return getattr(self.training_set, "is_repeatable", False)

    def encode_support_set(self, largest: int | None = None) -> None:
        """Encode the images of the training set.

        Args:
            largest (int | None, optional): Number of images, from the whole of a larger training set. Defaults to
                ``None``: all.

        Raises:
            NoSpaceError: If there is no room for the features.
        """
        paths = image_paths(self.training_set)
        chosen = evenly_chosen(len(paths), largest or len(paths))
        table = self.feature_cache.table(len(chosen))
        title = f"encoding {len(chosen)} images" if self.shows_progress else None
        items = ((paths[index], [self.support_image(index)]) for index in chosen)
        with progress_bar(title, len(chosen)) as progress:
            fill(table, 0, items, self.encode, progress)
        self._support_rows = {paths[index]: row for row, index in enumerate(chosen)}
        self._support_table = table

    @property
    def encoded_paths(self) -> list[str]:
        """Paths of the images that :meth:`encode_support_set` encoded, in their order."""
        return list(self._support_rows)

    def encoded_support_set(self) -> Iterator[list[torch.Tensor]]:
        """Yield the patch features of what :meth:`encode_support_set` encoded, a few images at a time.

        Yields:
            list[torch.Tensor]: Patch features ``(B, C_j, H_j, W_j)``, one tensor for each tapped block; nothing before
            the training starts and after it ends.
        """
        if self._support_table is not None:
            rows = list(self._support_rows.values())
            for start in range(0, len(rows), ENCODED_AT_ONCE):
                yield self._support_table.read(rows[start : start + ENCODED_AT_ONCE], self.device)

    def support_features(self, batch: ImageBatch) -> list[torch.Tensor]:
        """Return the patch features of a batch of the training set, from what is encoded already where that is so.

        Args:
            batch (ImageBatch): Batch.

        Returns:
            list[torch.Tensor]: Patch features ``(B, C_j, H_j, W_j)``, one tensor for each tapped block.
        """
        images = torch.as_tensor(batch.image)
        if self._support_table is None:
            features: list[torch.Tensor] = self.model.vision_encoder(images)
            return features
        return self._support_table.read([self._support_rows[path] for path in batch.image_path or []], images.device)

    def on_train_start(self) -> None:
        """Find out whether epochs end with a validation, always of the same images."""
        super().on_train_start()
        self.forget_features()
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        same = getattr(getattr(datamodule, "val_data", None), "is_repeatable", False)
        self._repeats_validation = same and self.trainer.enable_validation

    def validation_step(self, batch: ImageBatch, batch_idx: int, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict a batch of the synthetic validation set, which is encoded once where every epoch validates it."""
        del args, kwargs
        images = torch.as_tensor(batch.image)
        features = self._validation_features.get(batch_idx)
        if features is None:
            features = self.model.vision_encoder(images)
            if self._repeats_validation and self.feature_cache.claim(sum(block.nbytes for block in features)):
                self._validation_features[batch_idx] = features
        return batch.update(**self.validation_head(features, batch)._asdict())

    def validation_head(self, features: list[torch.Tensor], batch: ImageBatch) -> InferenceBatch:
        """Predict a batch of the validation set from its features.

        Args:
            features (list[torch.Tensor]): Patch features ``(B, C_j, H_j, W_j)``, one tensor for each tapped block.
            batch (ImageBatch): Batch.

        Returns:
            InferenceBatch: Raw predictions.
        """
        predictions: InferenceBatch = self.model.head(features, torch.as_tensor(batch.image).shape[-2:])
        return predictions

    def forget_features(self) -> None:
        """Free all features that were computed once."""
        self._feature_cache, self._support_table = None, None
        self._validation_features, self._repeats_validation = {}, False
