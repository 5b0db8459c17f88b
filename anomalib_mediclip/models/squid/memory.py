# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What normal images look like at each place: queues of recent features, and matrices that are learnt.

Both are read alike: the slots that are most like a query are mixed (paper, "Gumbel shrinkage").
"""

import torch
from torch import nn

PLACES = 4  # of 2 x 2: patches of an image, or windows of a patch


class MemoryQueues(nn.Module):
    """Four queues, one for each patch position, of features that the generator has seen there.

    The oldest features are replaced first. Slots are no parameters: no gradient changes them.

    Args:
        slots (int): Slots of each queue.
        dim (int): Width of a slot.
        top_k (int): Slots that a query is answered with.

    Attributes:
        slots (torch.Tensor): Content ``(4, slots, dim)``. At first it is uniform in the range +-1 / sqrt(dim).
        pointer (torch.Tensor): Slot that is filled next, int64 scalar. It is saved, so that a resumed training goes on
            where it was.

    Example:
        >>> queues = MemoryQueues(slots=10, dim=1, top_k=1)
        >>> for value in (1.0, 2.0, 3.0, 4.0):
        ...     queues.update(torch.full((3, 4, 1), value))
        >>> queues.slots[0, :, 0].tolist(), queues.pointer.item()
        ([4.0, 4.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0], 2)
    """

    slots: torch.Tensor
    pointer: torch.Tensor

    def __init__(self, slots: int, dim: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.register_buffer("slots", initial_slots(slots, dim))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        """Return what normal images have in place of features.

        Args:
            queries (torch.Tensor): Features ``(B, 4, D)``, one for each position.

        Returns:
            torch.Tensor: Mixtures of slots of the same position, ``(B, 4, D)``.
        """
        return read(queries, self.slots, self.top_k)

    @torch.no_grad()
    def update(self, queries: torch.Tensor) -> None:
        """Put features into the queues.

        Args:
            queries (torch.Tensor): Features ``(B, 4, D)``. Of more than there are slots the last ones are kept.
        """
        length = self.slots.shape[1]
        newest = queries[-length:].to(self.slots).transpose(0, 1)
        places = (self.pointer + torch.arange(newest.shape[1], device=newest.device)) % length
        self.slots[:, places] = newest
        self.pointer.copy_((self.pointer + newest.shape[1]) % length)


class DecoderMemory(nn.Module):
    """Four matrices of learnt slots, one for each quarter of a patch's feature map; the patches share them.

    Args:
        channels (int): Channels of the feature map.
        size (tuple[int, int]): Its height and width, both even.
        slots (int): Slots of each matrix.
        top_k (int): Slots that a query is answered with.
        shortcut (float): Share of the positions at which the answer takes the place of the map in training.
    """

    def __init__(self, channels: int, size: tuple[int, int], slots: int, top_k: int, shortcut: float) -> None:
        super().__init__()
        self.top_k, self.shortcut = top_k, shortcut
        self.slots = nn.Parameter(initial_slots(slots, channels * size[0] * size[1] // PLACES))

    def forward(self, features: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Replace a feature map by what normal images have.

        Args:
            features (torch.Tensor): Feature maps ``(N, C, h, w)``.
            generator (torch.Generator | None, optional): Source of the shortcut's positions.
                Defaults to ``None``: no shortcut.

        Returns:
            torch.Tensor: Feature maps, same shape.
        """
        _, channels, height, width = features.shape
        quarters = features.unflatten(2, (2, height // 2)).unflatten(4, (2, width // 2)).permute(0, 2, 4, 1, 3, 5)
        answers = read(quarters.flatten(1, 2).flatten(2), self.slots, self.top_k)
        answers = answers.unflatten(2, (channels, height // 2, width // 2)).unflatten(1, (2, 2))
        normal = answers.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return take_shortcut(normal, features, self.shortcut, generator)


def initial_slots(slots: int, dim: int) -> torch.Tensor:
    """Return slots that are uniform in the range +-1 / sqrt(dim).

    Args:
        slots (int): Number of slots of each place.
        dim (int): Width of a slot.

    Returns:
        torch.Tensor: Slots ``(4, slots, dim)``.
    """
    return torch.empty(PLACES, slots, dim).uniform_(-(dim**-0.5), dim**-0.5)


def read(queries: torch.Tensor, slots: torch.Tensor, top_k: int) -> torch.Tensor:
    """Answer queries by mixtures of the slots of their place.

    Args:
        queries (torch.Tensor): Queries ``(B, 4, D)``.
        slots (torch.Tensor): Slots ``(4, M, D)``.
        top_k (int): Number of slots that are mixed.

    Returns:
        torch.Tensor: Mixtures ``(B, 4, D)``.
    """
    by_place = queries.transpose(0, 1)
    weights = shrink(by_place @ slots.transpose(1, 2), top_k)
    return (weights @ slots).transpose(0, 1)


def shrink(similarities: torch.Tensor, top_k: int) -> torch.Tensor:
    """Turn similarities into weights of which few are not 0, with the gradient of a softmax.

    The official code calls it Gumbel shrinkage, but draws nothing. There the k-th largest weight itself is dropped, so
    that ``top_k: 4`` here is the official 5. Its reads of zeros, for k = 1 and for ties, do not exist here.

    Args:
        similarities (torch.Tensor): Products of queries and slots ``(..., M)``.
        top_k (int): Number of weights that are kept; all of them where there are fewer slots.

    Returns:
        torch.Tensor: Weights ``(..., M)``, 0 or more, whose sum is 1.

    Example:
        >>> shrink(torch.tensor([3.0, 2, 1, 0, -1, -2]), top_k=2)
        tensor([0.7311, 0.2689, 0.0000, 0.0000, 0.0000, 0.0000])
    """
    soft = similarities.softmax(dim=-1)
    largest, places = soft.detach().topk(min(top_k, soft.shape[-1]), dim=-1)
    hard = torch.zeros_like(soft).scatter(-1, places, largest / largest.sum(dim=-1, keepdim=True))
    return hard + (soft - soft.detach()) if soft.requires_grad else hard


def take_shortcut(
    replaced: torch.Tensor, original: torch.Tensor, share: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Replace a feature map at random positions only, so that gradients pass at the others (paper, masked shortcut).

    Args:
        replaced (torch.Tensor): Maps ``(N, C, h, w)`` that take the place of the original ones.
        original (torch.Tensor): Original maps, same shape.
        share (float): Share of the positions at which that happens, in [0, 1]; all channels alike.
        generator (torch.Generator | None): Source of the positions, on the CPU; None replaces all of them.

    Returns:
        torch.Tensor: Maps, same shape.
    """
    if generator is None:
        return replaced
    drawn = torch.rand(len(original), 1, *original.shape[2:], generator=generator)
    return torch.where((drawn < share).to(original.device), replaced, original)
