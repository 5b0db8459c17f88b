# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Base of the frozen vision encoders: normalisation inside, a few images at a time on a CPU."""

from typing import Any, ClassVar

import torch
from torch import nn

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
    PREFERS_BFLOAT16: ClassVar[bool] = False

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
