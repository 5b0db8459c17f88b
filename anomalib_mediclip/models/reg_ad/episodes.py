# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What a training step registers: queries, and for each of them other images of its category."""

from collections.abc import Sequence

import torch

from anomalib_mediclip.models.reg_ad.views import draw_view, make_views


def draw_others(number: int, own: int, shots: int, generator: torch.Generator) -> torch.Tensor:
    """Draw images of a category that are not the query.

    Args:
        number (int): Images of the category.
        own (int): Number of the query, from 0.
        shots (int): How many others; fewer than ``number``.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        torch.Tensor: Different numbers ``(shots,)``, int64, none of them the query's.

    Example:
        >>> draw_others(3, own=1, shots=2, generator=torch.Generator()).sort().values
        tensor([0, 2])
    """
    others = torch.randperm(number - 1, generator=generator)[:shots]
    return others + (others >= own)


def draw_support_episode(
    support: torch.Tensor, queries: int, shots: int, kinds: Sequence[str], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Register views of the support images with each other: the support set is the only category.

    Args:
        support (torch.Tensor): Support images ``(k, 3, H, W)`` in [0, 1], on the CPU.
        queries (int): Number of queries; every support image serves about as often as any other.
        shots (int): Supports of each query. There are k - 1 at most; a single image is registered with another view
            of itself.
        kinds (Sequence[str]): Kinds of views.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Queries ``(queries, 3, H, W)`` and their supports ``(queries, K, 3, H, W)``
        with K the smaller of ``shots`` and k - 1, at least 1.
    """
    number = len(support)
    chosen = torch.randperm(number, generator=generator)[torch.arange(queries) % number]
    if number == 1:
        others = chosen[:, None]
    else:
        drawn = [draw_others(number, own, shots, generator) for own in chosen.tolist()]
        others = torch.stack(drawn)
    images = support[torch.cat([chosen, others.flatten()])]
    views = make_views(images, [draw_view(kinds, generator) for _ in images])
    return views[:queries], views[queries:].unflatten(0, others.shape)
