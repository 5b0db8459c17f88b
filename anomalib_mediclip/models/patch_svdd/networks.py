# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Encoders of patches of 32 and 64 pixels, and the classifiers of directions (paper, section 3; official code)."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

SMALL, LARGE = 32, 64  # sides of the patches in pixels
WIDTHS = (32, 64, 128, 128, 64, 32, 32)  # of the layers of the encoder of small patches, but for the last one
HIDDEN = 128
SLOPE = 0.1  # of the leaky ReLU
DIRECTIONS = 8
FIRST_STRIDE = 2


class SmallPatchEncoder(nn.Module):
    """Encoder of patches of 32 x 32: eight convolutions without padding, leaky ReLU in between, tanh at the end.

    On a whole image it gives at (i, j) what it gives for the patch whose corner is at (s i, s j), where s is the stride
    in pixels: nothing is padded, so that is exact, and takes a fraction of the arithmetic.

    Args:
        embedding_dim (int): Width D of the embeddings.

    Example:
        >>> encoder = SmallPatchEncoder(64)
        >>> encoder(torch.zeros(1, 3, 32, 32)).shape, encoder(torch.zeros(1, 3, 224, 224), stride=4).shape
        (torch.Size([1, 64, 1, 1]), torch.Size([1, 64, 49, 49]))
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        channels = [3, *WIDTHS, embedding_dim]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, FIRST_STRIDE if number == 0 else 1)
            for number, (before, after) in enumerate(pairwise(channels))
        )
        initialise(self)

    def forward(self, images: torch.Tensor, stride: int = FIRST_STRIDE) -> torch.Tensor:
        """Embed all patches of images.

        Args:
            images (torch.Tensor): Images ``(B, 3, H, W)``, each side at least 32.
            stride (int, optional): Distance of neighbouring patches in pixels, even. Defaults to ``2``.

        Returns:
            torch.Tensor: Embeddings ``(B, D, (H - 32) // stride + 1, (W - 32) // stride + 1)`` in (-1, 1).
        """
        features = images
        for convolution in self.convolutions[:-1]:
            features = functional.leaky_relu(convolution(features), SLOPE)
        last: Any = self.convolutions[-1]
        return functional.conv2d(features, last.weight, last.bias, stride // FIRST_STRIDE).tanh()


class LargePatchEncoder(nn.Module):
    """Encoder of patches of 64 x 64, on the embeddings of their four quadrants.

    Args:
        embedding_dim (int): Width D of the embeddings.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.quadrants = nn.Conv2d(embedding_dim, HIDDEN, 2)
        self.output = nn.Conv2d(HIDDEN, embedding_dim, 1)
        initialise(self)

    def forward(self, small: torch.Tensor, dilation: int = 1, stride: int = 1) -> torch.Tensor:
        """Embed patches.

        Args:
            small (torch.Tensor): Embeddings of small patches ``(B, D, h, w)``: of the quadrants of one patch, 2 x 2, or
                of a whole image.
            dilation (int, optional): Distance of two quadrants on that map. Defaults to ``1``.
            stride (int, optional): Distance of neighbouring patches on that map. Defaults to ``1``.

        Returns:
            torch.Tensor: Embeddings ``(B, D, h', w')`` in (-1, 1).
        """
        weight, bias = self.quadrants.weight, self.quadrants.bias
        hidden = functional.leaky_relu(functional.conv2d(small, weight, bias, stride, dilation=dilation), SLOPE)
        embeddings: torch.Tensor = self.output(hidden).tanh()
        return embeddings


def initialise(encoder: nn.Module) -> None:
    """Draw weights as He et al. do, without biases, so that features vary as much behind a layer as before it.

    With the weights that torch draws by default each of the ten layers shrinks the differences between patches, to 1e-4
    behind the last one; they would drown in rounding until the training has enlarged them.

    Args:
        encoder (nn.Module): Encoder, whose convolutions are changed in place.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, a=SLOPE, nonlinearity="leaky_relu")
            nn.init.zeros_(module.bias)


class DirectionClassifier(nn.Module):
    """Says in which of eight directions the second of two patches lies, from the difference of their embeddings.

    In the official code the last layer is a fixed random readout, of which the bias alone learns: its weights are
    normalised over the outputs without gradients. That may be an oversight; here the layer learns unless asked.

    Args:
        embedding_dim (int): Width D of the embeddings.
        fixed_readout (bool): Whether the weights of the last layer stay as they were drawn.
    """

    def __init__(self, embedding_dim: int, fixed_readout: bool) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(embedding_dim, HIDDEN), nn.Linear(HIDDEN, HIDDEN)])
        self.readout = nn.Linear(HIDDEN, DIRECTIONS)
        if fixed_readout:
            self.readout.weight.data /= self.readout.weight.data.norm(dim=0, keepdim=True)
            self.readout.weight.requires_grad_(False)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Compute logits.

        Args:
            first (torch.Tensor): Embeddings of first patches ``(N, D)``.
            second (torch.Tensor): Embeddings of second patches ``(N, D)``.

        Returns:
            torch.Tensor: Logits ``(N, 8)``.
        """
        features = first - second
        for layer in self.hidden:
            features = functional.leaky_relu(layer(features), SLOPE)
        logits: torch.Tensor = self.readout(features)
        return logits
