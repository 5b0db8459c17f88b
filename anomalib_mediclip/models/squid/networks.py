# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patches, the encoder that all of them share, and the decoder of which student and teacher are one each."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

SIDE = 2  # patches along each side of an image
LEVELS = 4  # of encoder and decoder
STITCHED = 2  # level of the decoder before which the patches are stitched together


def split(images: torch.Tensor) -> torch.Tensor:
    """Cut images into 2 x 2 patches.

    Args:
        images (torch.Tensor): Images or feature maps ``(B, C, H, W)``, H and W even.

    Returns:
        torch.Tensor: Patches ``(4 B, C, H / 2, W / 2)``: those of an image one after another, row by row.

    Example:
        >>> split(torch.arange(4.0).view(1, 1, 2, 2)).flatten()
        tensor([0., 1., 2., 3.])
    """
    height, width = images.shape[2] // SIDE, images.shape[3] // SIDE
    cut = images.unflatten(2, (SIDE, height)).unflatten(4, (SIDE, width))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def stitch(patches: torch.Tensor) -> torch.Tensor:
    """Put patches together; the inverse of :func:`split`.

    Args:
        patches (torch.Tensor): Patches ``(4 B, C, h, w)``.

    Returns:
        torch.Tensor: Images or feature maps ``(B, C, 2 h, 2 w)``.
    """
    return patches.unflatten(0, (-1, SIDE, SIDE)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


class Block(nn.Module):
    """Convolution, and a residual of two more; each is 3 x 3 with batch normalisation.

    Args:
        before (int): Channels of the input.
        after (int): Channels of the output.
        stride (int, optional): Stride of the first convolution. Defaults to ``1``.
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(after, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1),
            nn.BatchNorm2d(after),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute features.

        Args:
            features (torch.Tensor): Feature maps ``(N, before, h, w)``.

        Returns:
            torch.Tensor: Feature maps ``(N, after, h / stride, w / stride)``, 0 or more.
        """
        first = self.first(features)
        return (first + self.residual(first)).relu()


class Encoder(nn.Module):
    """Encoder of patches: five blocks, of which all but the first halve the size.

    Args:
        width (int): Channels F of the first block; the others have 2 F to 16 F.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = Block(1, width)
        self.down = nn.ModuleList(Block(width << level, width << level + 1, stride=2) for level in range(LEVELS))

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Encode patches.

        Args:
            patches (torch.Tensor): Grey patches ``(4 B, 1, h, w)`` in [0, 1].

        Returns:
            tuple[torch.Tensor, list[torch.Tensor]]: Features ``(4 B, 16 F, h / 16, w / 16)``, and what the decoder
            gets besides: ``(4 B, 8 F, h / 8, w / 8)`` and ``(4 B, 4 F, h / 4, w / 4)``.
        """
        levels = [self.input(patches)]
        for block in self.down:
            levels.append(block(levels[-1]))
        return levels[4], [levels[3], levels[2]]


class Decoder(nn.Module):
    """Decoder: four blocks, each after bilinear upsampling; the last two see whole images.

    Args:
        width (int): Channels F of the last block; the others have 8 F to 2 F.
        memories (Sequence[nn.Module], optional): Memories of the first levels. Defaults to ``()``: none, as in the
            teacher.
    """

    def __init__(self, width: int, memories: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        channels = [(24 * width, 8 * width), (12 * width, 4 * width), (4 * width, 2 * width), (2 * width, width)]
        self.blocks = nn.ModuleList(Block(before, after) for before, after in channels)
        self.memories = nn.ModuleList(memories)
        self.output = nn.Conv2d(width, 1, 1)

    def forward(
        self, features: torch.Tensor, skips: Sequence[torch.Tensor], generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Make images.

        Args:
            features (torch.Tensor): Features of patches ``(4 B, 16 F, h, w)``.
            skips (Sequence[torch.Tensor]): Features of the encoder that are joined at the first levels.
            generator (torch.Generator | None, optional): Source of the shortcuts' positions.
                Defaults to ``None``: no shortcuts.

        Returns:
            tuple[torch.Tensor, list[torch.Tensor]]: Grey images ``(B, 1, 32 h, 32 w)`` in [0, 1], and the features of
            the four levels, behind the memories.
        """
        levels = []
        for level, block in enumerate(self.blocks):
            if level == STITCHED:
                features = stitch(features)
            features = functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            if level < len(skips):
                features = torch.cat([features, skips[level]], dim=1)
            features = block(features)
            if level < len(self.memories):
                features = self.memories[level](features, generator)
            levels.append(features)
        return self.output(features).sigmoid(), levels
