# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Discriminator: how real an image looks. In training it teaches the generator, and then it gives the score."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

CHANNELS = (1, 16, 32, 64, 128, 128)
REDUCTION = 32  # of the sides, by five strides of 2
SLOPE = 0.2  # of the leaky ReLU


class Discriminator(nn.Module):
    """Five convolutions and a linear readout. Its channels do not depend on the generator's width.

    In evaluation batch normalisation takes each image's own statistics. So does the official code: it leaves the
    discriminator in training mode, and gives it one image at a time. Running statistics would mix those of real and of
    reconstructed images, which are normalised apart in training, and give another score.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels, multiples of 32.

    Attributes:
        per_image (bool): Whether evaluation takes each image's own statistics. False takes the running ones; it is
            here for comparisons, and the statistics of the support set must then be computed again.
    """

    per_image: bool = True

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 5, stride=2, padding=2) for before, after in pairwise(CHANNELS)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in CHANNELS[2:])
        positions = (image_size[0] // REDUCTION) * (image_size[1] // REDUCTION)
        self.readout = nn.Linear(CHANNELS[-1] * positions, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Judge images.

        Args:
            images (torch.Tensor): Grey images ``(B, 1, H, W)`` in [0, 1].

        Returns:
            torch.Tensor: Realness ``(B,)``, a logit.
        """
        features = functional.leaky_relu(self.convolutions[0](images), SLOPE)
        for convolution, norm in zip(self.convolutions[1:], self.norms, strict=True):
            features = functional.leaky_relu(self._normalised(convolution(features), norm), SLOPE)
        realness: torch.Tensor = self.readout(features.flatten(1)).squeeze(1)
        return realness

    def _normalised(self, features: torch.Tensor, norm: Any) -> torch.Tensor:
        """Normalise features by the statistics of the batch, of each image, or the running ones."""
        if self.training or not self.per_image:
            normalised: torch.Tensor = norm(features)
            return normalised
        return functional.instance_norm(features, weight=norm.weight, bias=norm.bias, eps=norm.eps)
