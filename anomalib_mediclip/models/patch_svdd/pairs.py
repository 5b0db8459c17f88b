# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pairs of patches to learn from: at nearly the same place, or neighbours in eight directions (paper, section 3)."""

from dataclasses import dataclass

import torch

NOISE = 0.02  # standard deviation of colour shifts and of pixels, for images in [0, 1]; official code
OFFSETS = torch.tensor([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])  # (down, right)


@dataclass(frozen=True)
class Pairs:
    """Corners of pairs of patches.

    Args:
        side (int): Side of the patches in pixels.
        images (torch.Tensor): Number of the image of each pair, ``(N,)``.
        first (torch.Tensor): Top and left of the first patches, ``(N, 2)``.
        second (torch.Tensor): Those of the second patches, ``(N, 2)``.
        directions (torch.Tensor | None, optional): Where the second patches lie: a row of ``OFFSETS``, ``(N,)``.
            Defaults to ``None``: nearly where the first ones do.
    """

    side: int
    images: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    directions: torch.Tensor | None = None


def draw_close_pairs(
    number: int, images: int, image_size: tuple[int, int], side: int, keep_inside: bool, generator: torch.Generator
) -> Pairs:
    """Draw patches, and the same a pixel or two away (paper, Eq. 2): shifts up to side / 32 along each axis, not 0.

    Args:
        number (int): Number of pairs.
        images (int): Number of images; they take turns.
        image_size (tuple[int, int]): Height and width of the images in pixels.
        side (int): Side of the patches in pixels.
        keep_inside (bool): Whether to draw corners at which both patches lie in the image; otherwise the second one is
            moved to where it fits, as in the official code, and may be the first one.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        Pairs: Pairs.
    """
    reach = side // 32
    others = torch.tensor([(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1) if y or x])
    shifts = others[torch.randint(len(others), (number,), generator=generator)]
    first, second = _corners(shifts, image_size, side, keep_inside, generator)
    return Pairs(side, torch.arange(number) % images, first, second)


def draw_neighbours(
    number: int, images: int, image_size: tuple[int, int], side: int, keep_inside: bool, generator: torch.Generator
) -> Pairs:
    """Draw patches, and patches 3/4 to 1 side away in one of eight directions (paper, Eq. 3).

    Args:
        number (int): Number of pairs.
        images (int): Number of images; they take turns.
        image_size (tuple[int, int]): Height and width of the images in pixels.
        side (int): Side of the patches in pixels.
        keep_inside (bool): Whether to draw corners at which both patches lie in the image. Otherwise the second patch
            is moved to where it fits, as in the official code, and with 224 pixels one in eight pairs of the side 64
            then lies in another direction than its label says.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        Pairs: Pairs.
    """
    directions = torch.randint(len(OFFSETS), (number,), generator=generator)
    distances = 3 * side // 4 + torch.randint(side // 4, (number, 2), generator=generator)
    first, second = _corners(OFFSETS[directions] * distances, image_size, side, keep_inside, generator)
    return Pairs(side, torch.arange(number) % images, first, second, directions)


def cut(images: torch.Tensor, numbers: torch.Tensor, corners: torch.Tensor, side: int) -> torch.Tensor:
    """Cut patches from images.

    Args:
        images (torch.Tensor): Images ``(B, 3, H, W)``.
        numbers (torch.Tensor): Number of the image of each patch, ``(N,)``.
        corners (torch.Tensor): Top and left of each patch, ``(N, 2)``.
        side (int): Side of the patches in pixels.

    Returns:
        torch.Tensor: Patches ``(N, 3, side, side)``, channels last in memory.
    """
    steps = torch.arange(side)
    rows, columns = (corners[:, axis, None] + steps for axis in (0, 1))
    return images.movedim(1, -1)[numbers[:, None, None], rows[:, :, None], columns[:, None]].movedim(-1, 1)


def add_noise(patches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift the colours of each patch, and add noise to its pixels: directions must not be told by brightness.

    Args:
        patches (torch.Tensor): Patches ``(N, 3, K, K)``.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        torch.Tensor: Patches, same shape.
    """
    shift = NOISE * torch.randn(len(patches), 3, 1, 1, generator=generator)
    return patches + shift + NOISE * torch.randn(patches.shape, generator=generator)


def _corners(
    offsets: torch.Tensor, image_size: tuple[int, int], side: int, keep_inside: bool, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw first corners, all equally likely, and add the offsets ``(N, 2)``.

    Corners are drawn after the offsets: drawing all of it again until both fit would favour directions that fit often.
    """
    largest = torch.tensor(image_size) - side
    low = (-offsets).clamp(min=0) if keep_inside else torch.zeros_like(offsets)
    high = largest - offsets.clamp(min=0) if keep_inside else largest.expand_as(offsets)
    shares = torch.rand(offsets.shape, generator=generator, dtype=torch.float64)
    first = low + (shares * (high - low + 1)).long()
    return first, torch.minimum((first + offsets).clamp(min=0), largest)
