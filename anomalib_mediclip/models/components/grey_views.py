# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Grey images, and slightly moved views of them: methods that reconstruct see each support image thousands of times."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class MoveRanges:
    """How far views are moved at most, in either direction.

    Attributes:
        angle (float): Rotation in degrees.
        vertical (float): Shift, as a share of the height.
        horizontal (float): Shift, as a share of the width.
        scale (float): Enlargement or reduction, as a share of the size.
    """

    angle: float = 0.0
    vertical: float = 0.0
    horizontal: float = 0.0
    scale: float = 0.0


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """Return the mean of the channels.

    Args:
        images (torch.Tensor): Images ``(B, C, H, W)``, any range.

    Returns:
        torch.Tensor: Grey images ``(B, 1, H, W)``, same range.

    Example:
        >>> to_grey(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)).item()
        0.5
    """
    return images.mean(dim=1, keepdim=True)


def draw_views(images: torch.Tensor, number: int, ranges: MoveRanges, generator: torch.Generator) -> torch.Tensor:
    """Return moved views; the images take turns.

    Each view is rotated, scaled and shifted by amounts of its own, all of them uniform in their range. Interpolation
    is bilinear. What comes from outside has the value of the nearest border pixel: the background of ultrasound is not
    black.

    Args:
        images (torch.Tensor): Images ``(B, C, H, W)``, any range.
        number (int): Number of views.
        ranges (MoveRanges): Largest moves.
        generator (torch.Generator): Source of the draws, on the CPU, so that they are the same on every device.

    Returns:
        torch.Tensor: Views ``(number, C, H, W)``, same range and device.

    Example:
        >>> images = torch.rand(2, 1, 4, 4)
        >>> views = draw_views(images, 3, MoveRanges(), torch.Generator())
        >>> torch.allclose(views, images[[0, 1, 0]], atol=1e-6)
        True
    """
    chosen = images[torch.arange(number, device=images.device) % len(images)]
    drawn = 2 * torch.rand(number, 4, generator=generator) - 1
    largest = (math.radians(ranges.angle), ranges.vertical, ranges.horizontal, ranges.scale)
    angle, down, right, growth = (drawn * torch.tensor(largest)).unbind(1)
    ratio = images.shape[2] / images.shape[3]
    cosine, sine = angle.cos() / (1 + growth), angle.sin() / (1 + growth)
    # of where a pixel comes from, in coordinates from -1 to 1 along each side
    rows = [torch.stack([cosine, sine * ratio, -2 * right], 1), torch.stack([-sine / ratio, cosine, -2 * down], 1)]
    matrices = torch.stack(rows, dim=1).to(images)
    grid = functional.affine_grid(matrices, list(chosen.shape), align_corners=False)
    return functional.grid_sample(chosen, grid, mode="bilinear", padding_mode="border", align_corners=False)
