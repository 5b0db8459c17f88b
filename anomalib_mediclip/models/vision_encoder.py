# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen vision encoders that return patch features, shared by the models."""

from typing import Any, ClassVar

import torch
from torch import nn

from anomalib_mediclip.models.folding import fold
from anomalib_mediclip.models.pretrained import create_timm

IMAGE = 224 * 224  # pixels


class VisionEncoder(nn.Module):
    """Frozen encoder that returns the patch features of some of its blocks.

    Normalisation with the encoder's own mean and standard deviation is part of the encoder, so that images are RGB in
    [0, 1] everywhere else: the synthesis needs them so, and an exported model takes them so.

    On a CPU it runs on a few images at a time: its largest intermediate results must stay below 32 MB, from where on
    glibc asks the system for the memory of each of them anew.

    Args:
        mean (tuple[float, float, float]): Mean of the images the encoder was trained on, per channel.
        std (tuple[float, float, float]): Standard deviation of these, per channel.

    Attributes:
        PIXELS_AT_ONCE (int): How much of a batch goes through at a time on a CPU.
    """

    PIXELS_AT_ONCE: ClassVar[int] = 8 * IMAGE

    mean: torch.Tensor
    std: torch.Tensor
    tower: Any  # modules of open_clip and timm, whose attributes are not typed
    channels: list[int]

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Stay in evaluation mode: a frozen encoder must not update its batch statistics."""
        del mode
        return super().train(False)

    def prepare(self) -> None:
        """Make the encoder faster, once its weights as published have been hashed."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Extract the patch features G_j(X) of the tapped blocks.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            list[torch.Tensor]: Patch features of shape ``(B, C_j, H_j, W_j)``, one tensor for each tapped block, in
            float32 whatever the encoder computes in.
        """
        normalised = (images - self.mean) / self.std
        normalised = normalised.to(next(self.tower.parameters()).dtype)
        if torch.compiler.is_compiling() or images.device.type != "cpu":
            return [feature.float() for feature in self.extract(normalised)]
        portions = normalised.split(max(1, self.PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1])))
        blocks = zip(*(self.extract(portion) for portion in portions), strict=True)
        return [torch.cat(block).float() for block in blocks]

    def extract(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run the encoder on normalised images.

        Args:
            images (torch.Tensor): Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            list[torch.Tensor]: As :meth:`forward`.
        """
        raise NotImplementedError


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
        return self.tower(images)
