# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Views of a support image: the 22 of the official code, and views drawn from their ranges."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch

from anomalib_mediclip.models.reg_ad.spatial_transformer import warp

ViewKind = Literal["rotate", "translate", "flip", "grey", "rotate90"]

LARGEST_ANGLE = math.pi / 4  # radians
LARGEST_SHIFT = 0.2  # of the range -1 to 1 of each side: a tenth of it, 22 of 224 pixels
GREY = 0.299, 0.587, 0.114  # their sum is 1, so that grey images stay what they are


class View(NamedTuple):
    """A view of an image.

    Attributes:
        kind (str): Kind; empty for the image itself.
        angle (float): By how much it is turned, in radians. The corners are filled by reflection.
        shift (tuple[float, float]): Shift along width and height, of the range -1 to 1.
        flip (bool): Whether left and right are exchanged.
        grey (bool): Whether colours are taken away.
    """

    kind: str = ""
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False
    grey: bool = False


def fixed_views(kinds: Sequence[str]) -> list[View]:
    """List the views of the official code.

    Args:
        kinds (Sequence[str]): Which kinds; the image itself is always the first view.

    Returns:
        list[View]: The image itself; turned by ±1, ±2, ±3 and ±4 times pi / 16; shifted by 0.2 and 0.1 along both
        sides in all four directions; flipped; grey; turned by 90, 180 and 270 degrees.

    Raises:
        ValueError: If there is no such kind.

    Example:
        >>> len(fixed_views(["rotate", "translate", "flip", "grey", "rotate90"])), fixed_views(["flip"])[1].flip
        (22, True)
    """
    unknown = [kind for kind in kinds if kind not in get_args(ViewKind)]
    if unknown:
        msg = f"views={list(kinds)}: there is no {unknown[0]!r}; name some of {', '.join(get_args(ViewKind))}, or none."
        raise ValueError(msg)
    listed = [
        *(View("rotate", angle=sign * part * math.pi / 16) for part in (1, 2, 3, 4) for sign in (-1, 1)),
        *(
            View("translate", shift=(x * size, y * size))
            for size in (LARGEST_SHIFT, LARGEST_SHIFT / 2)
            for x in (-1, 1)
            for y in (-1, 1)
        ),
        View("flip", flip=True),
        View("grey", grey=True),
        *(View("rotate90", angle=quarters * math.pi / 2) for quarters in (1, 2, 3)),
    ]
    return [View(), *(view for view in listed if view.kind in kinds)]


def draw_view(kinds: Sequence[str], generator: torch.Generator) -> View:
    """Draw one of the fixed views, and, where it is turned or shifted, another angle or shift in the same range.

    Args:
        kinds (Sequence[str]): Kinds of views.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        View: View; the angle is at most pi / 4, the shift along either side 0.2.
    """
    listed = fixed_views(kinds)
    view = listed[int(torch.randint(len(listed), (), generator=generator))]
    first, second = (2 * torch.rand(2, generator=generator) - 1).tolist()
    if view.kind == "rotate":
        return view._replace(angle=first * LARGEST_ANGLE)
    if view.kind == "translate":
        return view._replace(shift=(first * LARGEST_SHIFT, second * LARGEST_SHIFT))
    return view


def make_views(images: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """Make a view of each image: bilinear, edges reflected.

    Images that are not square are turned by angles in pixels, and keep their size.

    Args:
        images (torch.Tensor): RGB images ``(B, 3, H, W)`` in [0, 1].
        views (Sequence[View]): One view for each image.

    Returns:
        torch.Tensor: Views ``(B, 3, H, W)`` in [0, 1].

    Example:
        >>> make_views(torch.arange(4.0).expand(1, 3, 1, 4) / 3, [View(flip=True)])[0, 0]
        tensor([[1.0000, 0.6667, 0.3333, 0.0000]])
    """
    height, width = images.shape[-2:]
    matrices = torch.tensor([_matrix(view, height / width) for view in views], device=images.device)
    moved = warp(images, matrices).clamp(0, 1)
    grey = (moved * moved.new_tensor(GREY)[:, None, None]).sum(dim=1, keepdim=True).expand_as(moved)
    is_grey = torch.tensor([view.grey for view in views], device=images.device)
    return torch.where(is_grey[:, None, None, None], grey, moved)


def _matrix(view: View, ratio: float) -> list[list[float]]:
    """Return the transformation of a view, for images of some ratio of height to width."""
    mirror, (x, y) = -1.0 if view.flip else 1.0, view.shift
    cosine, sine = math.cos(view.angle), math.sin(view.angle)
    return [[mirror * cosine, -sine * ratio, x], [mirror * sine / ratio, cosine, y]]
