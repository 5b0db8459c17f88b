# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Siamese encoder and predictor: what the registration compares, and the score does not need (paper, section 3.1)."""

from torch import nn


class SiameseEncoder(nn.Sequential):
    """Encoder E: z = E(F), position by position; three convolutions of 1 x 1, no bias, no pooling.

    Args:
        width (int): Channels of the feature map, and of all layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__(*_hidden(width), *_hidden(width), nn.Conv2d(width, width, kernel_size=1, bias=False))


class SiamesePredictor(nn.Sequential):
    """Predictor P: p = P(z), position by position; two convolutions of 1 x 1, no bias.

    Args:
        width (int): Channels of z, and of all layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__(*_hidden(width), nn.Conv2d(width, width, kernel_size=1, bias=False))


def _hidden(width: int) -> list[nn.Module]:
    return [nn.Conv2d(width, width, kernel_size=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
