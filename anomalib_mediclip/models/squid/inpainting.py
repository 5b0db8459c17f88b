# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""In-painting of features: each patch is made anew from what normal images have there and around (paper, section 3)."""

import torch
from torch import nn
from torch.nn import functional

from anomalib_mediclip.models.squid.memory import PLACES, MemoryQueues, take_shortcut
from anomalib_mediclip.models.squid.networks import SIDE

HEADS = 8
BOTTLENECK = 4  # the block works on a quarter of the channels
CODE = 3  # bits of a patch's position; the official code has one more than four positions need
AROUND = [(row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)]


class InpaintingBlock(nn.Module):
    """Memory queues, and a transformer layer over their answers in the neighbourhood.

    Args:
        channels (int): Channels of the encoder's features.
        size (tuple[int, int]): Height and width of the features of a patch.
        slots (int): Slots of each queue.
        top_k (int): Slots that a query is answered with.
        shortcut (float): Share of the positions at which features are in-painted in training.

    Attributes:
        queues (MemoryQueues): Queues of the four patch positions.
    """

    code: torch.Tensor

    def __init__(self, channels: int, size: tuple[int, int], slots: int, top_k: int, shortcut: float) -> None:
        super().__init__()
        self.size, self.shortcut = size, shortcut
        narrow = channels // BOTTLENECK
        dim = narrow * size[0] * size[1]
        self.narrow = nn.Sequential(nn.Conv2d(channels, narrow, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU())
        self.queues = MemoryQueues(slots, dim, top_k)
        self.attention = nn.MultiheadAttention(dim, HEADS, batch_first=True)
        self.attention_norm = nn.LayerNorm(dim)
        self.perceptron = nn.Sequential(nn.Linear(dim, dim // 4), nn.ReLU(), nn.Linear(dim // 4, dim))
        self.perceptron_norm = nn.LayerNorm(dim)
        self.widen = nn.Sequential(nn.Conv2d(narrow + CODE, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        bits = torch.arange(PLACES)[:, None] >> torch.arange(CODE) & 1
        self.register_buffer("code", bits.float(), persistent=False)

    def forward(
        self, features: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """In-paint features.

        Args:
            features (torch.Tensor): Features of patches ``(4 B, C, h, w)``.
            generator (torch.Generator | None, optional): Source of the shortcut's positions.
                Defaults to ``None``: all positions are in-painted.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Features, same shape, and the queries ``(B, 4, C h w / 4)``, with which
            the queues are updated.
        """
        queries = self.narrow(features).flatten(1).unflatten(0, (-1, PLACES))
        normal = self.queues(queries)
        attended = self._attend(queries, neighbours(normal))
        mixed = (self.attention_norm(attended) + normal).relu()  # the queues' answer itself, not the query
        mixed = (self.perceptron_norm(self.perceptron(mixed)) + mixed).relu()
        maps = mixed.unflatten(2, (-1, *self.size))
        code = self.code[:, :, None, None].expand(maps.shape[0], -1, -1, *self.size)
        inpainted = self.widen(torch.cat([maps, code.to(maps)], dim=2).flatten(0, 1))
        return take_shortcut(inpainted, features, self.shortcut, generator), queries

    def _attend(self, queries: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        """Let each patch's query attend to its neighbours; the zeros outside of the image take part in the softmax."""
        keys = around.flatten(0, 1)
        attended, _ = self.attention(queries.flatten(0, 1)[:, None], keys, keys, need_weights=False)
        return attended.squeeze(1).unflatten(0, (-1, PLACES))


def neighbours(patches: torch.Tensor) -> torch.Tensor:
    """Return the eight neighbours of each patch, with zeros outside of the image.

    Args:
        patches (torch.Tensor): Features ``(B, 4, D)``, row by row.

    Returns:
        torch.Tensor: Features ``(B, 4, 8, D)``.

    Example:
        >>> neighbours(torch.tensor([[[1.0], [2], [3], [4]]]))[0, :, :, 0]
        tensor([[0., 0., 0., 0., 2., 0., 3., 4.],
                [0., 0., 0., 1., 0., 3., 4., 0.],
                [0., 1., 2., 0., 4., 0., 0., 0.],
                [1., 2., 0., 3., 0., 0., 0., 0.]])
    """
    padded = functional.pad(patches.unflatten(1, (SIDE, SIDE)), (0, 0, 1, 1, 1, 1))
    shifted = [padded[:, row : row + SIDE, column : column + SIDE] for row, column in AROUND]
    return torch.stack(shifted, dim=3).flatten(1, 2)
