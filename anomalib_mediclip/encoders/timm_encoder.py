# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Backbones of timm that return the feature maps of some of their stages."""

import torch

from anomalib_mediclip.encoders.folding import fold
from anomalib_mediclip.encoders.vision_encoder import IMAGE, VisionEncoder
from anomalib_mediclip.encoders.weights import create_timm


class TimmVisionEncoder(VisionEncoder):
    """Backbone from timm: feature maps of some of its stages, at their own strides.

    Args:
        encoder (str): ``"timm/<model>"``.
        weights (str | None): ``"pretrained"``, the path of a checkpoint, or ``None`` for random weights.
        layers (list[int]): Tapped stages, 1-based.
        image_size (tuple[int, int]): Height and width of the input in pixels.

    Raises:
        ValueError: If the backbone does not take images of this size, or does not return feature maps.
    """

    PIXELS_AT_ONCE = 4 * IMAGE

    def __init__(self, encoder: str, weights: str | None, layers: list[int], image_size: tuple[int, int]) -> None:
        tower = create_timm(encoder, weights, layers)
        super().__init__(tower.default_cfg["mean"], tower.default_cfg["std"])
        self.channels = tower.feature_info.channels()
        self.tower = tower.to(memory_format=torch.channels_last)  # a third faster on a CPU; convolutions follow it
        self._image_size = image_size
        self._check(encoder)

    def _check(self, encoder: str) -> None:
        """Run the backbone once: some take one size only, some put the channels last."""
        try:
            with torch.no_grad():
                widths = [feature.shape[1] for feature in self.tower(torch.zeros(1, 3, *self._image_size))]
        except (AssertionError, RuntimeError) as error:
            msg = f"{encoder!r} does not take images of size {self._image_size} ({error}). Change --model.image_size."
            raise ValueError(msg) from error
        if widths != list(self.channels):
            msg = f"{encoder!r} does not return feature maps (B, C, H, W). Use a convolutional backbone of timm."
            raise ValueError(msg)

    def prepare(self) -> None:
        """Fold batch normalisation into the convolutions; features change by rounding only."""
        images = torch.rand(1, 3, *self._image_size, generator=torch.Generator().manual_seed(0))
        self.tower = fold(self.tower, (images - self.mean) / self.std)

    def extract(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run the backbone; see :meth:`VisionEncoder.extract`."""
        features: list[torch.Tensor] = self.tower(images)
        return features
