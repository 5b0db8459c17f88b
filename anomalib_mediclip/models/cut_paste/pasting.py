# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CutPaste and scar: a rectangle of an image pasted elsewhere in the same image (paper, sections 2.2 and 2.3).

Everything random is drawn first, into a :class:`Paste`; :func:`paste` and :func:`jitter` are pure functions.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

Kind = Literal["cut_paste", "scar"]

AREA = (0.02, 0.15)  # of the image; paper
ASPECT_RATIO = (0.3, 1 / 0.3)  # paper
SCAR_WIDTH = (2.0, 16.0)  # pixels of an image of SCAR_SIDE; paper
SCAR_LENGTH = (10.0, 25.0)
SCAR_ANGLE = (-45.0, 45.0)  # degrees
SCAR_SIDE = 256
LEAST_CHANGE = 1 / 255  # a paste that changes less anywhere is no anomaly
TRIES = 10


@dataclass(frozen=True)
class Paste:
    """Where a rectangle is cut, how it is changed, and where it is pasted.

    Args:
        source (tuple[int, int]): Top and left of the rectangle, in pixels.
        size (tuple[int, int]): Its height and width.
        angle (float): Rotation in degrees.
        place (tuple[float, float]): Where it is pasted: how far down and right, in [0, 1), among the places that fit.
        colour (tuple[float, ...]): Changes of its brightness, contrast, saturation and hue.
    """

    source: tuple[int, int]
    size: tuple[int, int]
    angle: float
    place: tuple[float, float]
    colour: tuple[float, ...]


def draw_paste(kind: Kind, size: tuple[int, int], strength: float, generator: torch.Generator) -> Paste:
    """Draw a paste.

    Args:
        kind (Kind): ``"cut_paste"``, 2 to 15 percent of the image, or ``"scar"``, a thin rotated rectangle.
        size (tuple[int, int]): Height and width of the image in pixels.
        strength (float): Largest change of brightness, contrast, saturation and hue.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        Paste: Its parameters.
    """
    first, second, *corner = torch.rand(4, generator=generator).tolist()
    if kind == "cut_paste":
        area = _between(AREA, first) * size[0] * size[1]
        ratio = math.exp(_between((math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])), second))
        extent = math.sqrt(area / ratio), math.sqrt(area * ratio)
    else:
        scale = min(size) / SCAR_SIDE
        extent = _between(SCAR_LENGTH, first) * scale, _between(SCAR_WIDTH, second) * scale
    height, width = (min(max(round(side), 1), whole) for side, whole in zip(extent, size, strict=True))
    source = _position(corner[0], size[0] - height), _position(corner[1], size[1] - width)
    turn, *place = torch.rand(3, generator=generator).tolist()
    angle = 0.0 if kind == "cut_paste" else _between(SCAR_ANGLE, turn)
    return Paste(source, (height, width), angle, (place[0], place[1]), draw_colour(strength, generator))


def draw_colour(strength: float, generator: torch.Generator) -> tuple[float, ...]:
    """Draw changes of brightness, contrast, saturation and hue.

    Args:
        strength (float): Largest change of each.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        tuple[float, ...]: Four numbers between ``-strength`` and ``strength``.
    """
    return tuple((strength * (2 * torch.rand(4, generator=generator) - 1)).tolist())


def jitter(image: torch.Tensor, colour: tuple[float, ...]) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue of an image; grey images do not notice the last two.

    Args:
        image (torch.Tensor): RGB image ``(3, H, W)`` in [0, 1].
        colour (tuple[float, ...]): Changes; zeros change nothing.

    Returns:
        torch.Tensor: Image in [0, 1], same shape.
    """
    brightness, contrast, saturation, hue = colour
    image = transforms.adjust_brightness(image, 1 + brightness) if brightness else image
    image = transforms.adjust_contrast(image, 1 + contrast) if contrast else image
    image = transforms.adjust_saturation(image, 1 + saturation) if saturation else image
    return transforms.adjust_hue(image, hue) if hue else image


def paste(image: torch.Tensor, parameters: Paste) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a rectangle from an image, change and turn it, and paste it elsewhere, without blending.

    Args:
        image (torch.Tensor): RGB image ``(3, H, W)`` in [0, 1]; it is not modified.
        parameters (Paste): Parameters, from :func:`draw_paste`.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Pasted image ``(3, H, W)``, and where it was pasted ``(H, W)``, bool. Every
        other pixel keeps its value.

    Example:
        >>> parameters = Paste(source=(0, 0), size=(1, 2), angle=0.0, place=(0.99, 0.99), colour=(0, 0, 0, 0))
        >>> pasted, mask = paste(torch.eye(4).expand(3, 4, 4), parameters)
        >>> pasted[0, 3], mask[3]
        (tensor([0., 0., 1., 0.]), tensor([False, False,  True,  True]))
    """
    (top, left), (height, width) = parameters.source, parameters.size
    patch = jitter(image[:, top : top + height, left : left + width], parameters.colour)
    shape = torch.ones(1, height, width)
    if parameters.angle:  # the nearest pixel of the rectangle: nothing is mixed with the ground around it
        patch, shape = (transforms.rotate(part, parameters.angle, expand=True) for part in (patch, shape))
    patch, covered = _fitting(patch, image.shape), _fitting(shape, image.shape)[0] > 0
    top, left = (_position(p, w - o) for p, w, o in zip(parameters.place, image.shape[1:], covered.shape, strict=True))
    mask = torch.zeros(image.shape[1:], dtype=torch.bool)
    mask[top : top + covered.shape[0], left : left + covered.shape[1]] = covered
    pasted = image.clone()
    pasted[:, mask] = patch[:, covered]
    return pasted, mask


def paste_visibly(
    kind: Kind, image: torch.Tensor, strength: float, generator: torch.Generator
) -> tuple[torch.Tensor, bool]:
    """Paste until something changes: background pasted on background would be a label without a difference.

    Args:
        kind (Kind): Kind of paste.
        image (torch.Tensor): RGB image ``(3, H, W)`` in [0, 1].
        strength (float): Largest change of the colour of what is pasted.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        tuple[torch.Tensor, bool]: Pasted image, and whether it differs; after ten tries in vain it does not.
    """
    for _ in range(TRIES):
        pasted, _ = paste(image, draw_paste(kind, (image.shape[1], image.shape[2]), strength, generator))
        if (pasted - image).abs().max() >= LEAST_CHANGE:
            return pasted, True
    return pasted, False


def augment(image: torch.Tensor, strength: float, translation: float, generator: torch.Generator) -> torch.Tensor:
    """Change the colour of a whole image and shift it, with reflected edges.

    Args:
        image (torch.Tensor): RGB image ``(3, H, W)`` in [0, 1].
        strength (float): Largest change of brightness, contrast, saturation and hue.
        translation (float): Largest shift, as a share of each side.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        torch.Tensor: Image in [0, 1], same shape.
    """
    down, right = (2 * torch.rand(2, generator=generator) - 1).tolist()
    height, width = image.shape[1:]
    rows, columns = round(down * translation * height), round(right * translation * width)
    padding = [max(columns, 0), max(-columns, 0), max(rows, 0), max(-rows, 0)]
    padded = functional.pad(image, padding, mode="reflect")
    shifted = padded[:, max(-rows, 0) : max(-rows, 0) + height, max(-columns, 0) : max(-columns, 0) + width]
    return jitter(shifted, draw_colour(strength, generator))


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])


def _position(share: float, largest: int) -> int:
    """Return one of the positions 0 to ``largest``, all equally likely for a uniform share of [0, 1)."""
    return int(share * (largest + 1))


def _fitting(part: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Cut what a turned rectangle has more than the image."""
    return part[:, : size[1], : size[2]]
