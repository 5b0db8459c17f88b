# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Spatial transformers of feature maps, and how they are undone (paper, section 3.1).

A transformation is a matrix ``(2, 3)``, the first two rows of an affine matrix ``(3, 3)``. It acts on positions in
[-1, 1] x [-1, 1], the area of a map: the result at a position p is the map at the position M p.
"""

from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

TransformMode = Literal[
    "affine",
    "translation",
    "rotation",
    "scale",
    "shear",
    "rotation_scale",
    "translation_scale",
    "rotation_translation",
    "rotation_translation_scale",
]

# parameters of each part of a mode for which nothing moves, in the order of the official code
AT_REST = {
    "affine": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "rotation": (0.0,),
    "translation": (0.0, 0.0),
    "scale": (1.0, 1.0),
    "shear": (0.0, 0.0),
}
WIDTHS = 64, 16, 1024  # of the two convolutions and the hidden layer; official code


class SpatialTransformer(nn.Module):
    """Moves a feature map by a transformation that it reads from the map; at first it moves nothing.

    Layers are those of the official code: twice convolution, batch normalisation, ReLU and pooling, then two linear
    layers. Their number of inputs depends on the size of the map.

    Args:
        channels (int): Channels of the map.
        size (tuple[int, int]): Height and width of the map.
        mode (TransformMode, optional): What may change. Defaults to ``"rotation_scale"``.

    Raises:
        ValueError: If there is no such mode.

    Example:
        >>> transformer = SpatialTransformer(8, (14, 14))
        >>> moved, matrix = transformer(torch.rand(2, 8, 14, 14))
        >>> matrix[0]
        tensor([[1., -0., 0.],
                [0., 1., 0.]], grad_fn=<SelectBackward0>)
    """

    def __init__(self, channels: int, size: tuple[int, int], mode: TransformMode = "rotation_scale") -> None:
        super().__init__()
        if mode not in get_args(TransformMode):
            msg = f"transform={mode!r}: use one of {', '.join(get_args(TransformMode))}."
            raise ValueError(msg)
        self.mode = mode
        first, second, hidden = WIDTHS
        height, width = (-(-side // 4) for side in size)  # halved twice, rounded up
        resting = torch.tensor([number for part in _parts(mode) for number in AT_REST[part]])
        output = nn.Linear(hidden, len(resting))
        nn.init.zeros_(output.weight)
        with torch.no_grad():
            output.bias.copy_(resting)
        self.localise = nn.Sequential(
            *_reducing(channels, first),
            *_reducing(first, second),
            nn.Flatten(),
            nn.Linear(second * height * width, hidden),
            nn.ReLU(),
            output,
        )

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Move feature maps.

        Args:
            features (torch.Tensor): Feature maps ``(B, C, h, w)``.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Moved maps, same shape, and the transformations ``(B, 2, 3)``.
        """
        matrices = transformations(self.localise(features).float(), self.mode)
        return warp(features, matrices), matrices


def transformations(parameters: torch.Tensor, mode: TransformMode) -> torch.Tensor:
    """Return the matrices of the nine modes of the official code.

    With angle a, scales s and t and shift (x, y) they are [[s cos a, -sin a, x], [sin a, t cos a, y]] (sines are not
    scaled), where a mode leaves out what it does not name. The mode ``shear`` has [[1, u, 0], [v, 1, 0]].

    Args:
        parameters (torch.Tensor): Numbers ``(B, n)`` in the order of the name of the mode.
        mode (TransformMode): Mode.

    Returns:
        torch.Tensor: Matrices ``(B, 2, 3)``.

    Example:
        >>> transformations(torch.tensor([[0.5, -0.5, 2.0, 3.0]]), "translation_scale")
        tensor([[[ 2.0000, -0.0000,  0.5000],
                 [ 0.0000,  3.0000, -0.5000]]])
    """
    if mode == "affine":
        return parameters.view(-1, 2, 3)
    given = dict.fromkeys(AT_REST, ()) | dict(zip(_parts(mode), _split(parameters, mode), strict=True))
    zero, one = torch.zeros_like(parameters[:, 0]), torch.ones_like(parameters[:, 0])
    (angle,) = given["rotation"] or (zero,)
    x, y = given["translation"] or (zero, zero)
    s, t = given["scale"] or (one, one)
    u, v = given["shear"] or (-angle.sin(), angle.sin())
    return torch.stack([s * angle.cos(), u, x, v, t * angle.cos(), y], dim=1).view(-1, 2, 3)


def warp(features: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Move maps: bilinear, edges reflected. Where nothing moves, the result is the map up to rounding.

    Args:
        features (torch.Tensor): Feature maps or images ``(B, C, h, w)``.
        matrices (torch.Tensor): Transformations ``(B, 2, 3)``, float32.

    Returns:
        torch.Tensor: Moved maps, same shape and type.
    """
    height, width = features.shape[-2:]
    rows, columns = (2 * torch.arange(side, device=matrices.device) + 1 for side in (height, width))
    y, x = (rows / height - 1)[:, None], (columns / width - 1)[None]
    coordinates = [row[:, 0] * x + row[:, 1] * y + row[:, 2] for row in matrices[..., None, None].unbind(1)]
    grid = torch.stack(coordinates, dim=-1)
    moved = functional.grid_sample(
        features.to(grid), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return moved.to(features)


def compose(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the transformation that moves a map as two do, one after the other.

    Args:
        first (torch.Tensor): Transformations ``(B, 2, 3)`` that act on the map first.
        second (torch.Tensor): Transformations that act on the result.

    Returns:
        torch.Tensor: Transformations: the product of the matrices.
    """
    linear, shift = first[..., :2], first[..., 2:]
    return torch.cat([linear @ second[..., :2], linear @ second[..., 2:] + shift], dim=-1)


def invert(matrices: torch.Tensor) -> torch.Tensor:
    """Return the transformations that undo others, in closed form.

    Args:
        matrices (torch.Tensor): Transformations ``(B, 2, 3)``.

    Returns:
        torch.Tensor: Their inverses.
    """
    a, b, x, c, d, y = matrices.flatten(1).unbind(1)
    determinant = a * d - b * c
    rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
    return torch.stack([row / determinant for row in rows], dim=1).view(-1, 2, 3)


def move(matrix: torch.Tensor) -> float:
    """Return how far a transformation moves a corner of the map along an axis, at most.

    Args:
        matrix (torch.Tensor): Transformation ``(2, 3)``.

    Returns:
        float: Distance, as a share of the side; 0 at rest.

    Example:
        >>> move(torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.5, 0.0]]))
        0.25
    """
    return (matrix - torch.eye(3)[:2].to(matrix)).abs().sum(dim=1).max().item() / 2


def _parts(mode: str) -> list[str]:
    return mode.split("_")


def _split(parameters: torch.Tensor, mode: str) -> list[tuple[torch.Tensor, ...]]:
    """Return the numbers of each part of a mode."""
    columns = iter(parameters.unbind(1))
    return [tuple(next(columns) for _ in AT_REST[part]) for part in _parts(mode)]


def _reducing(channels: int, width: int) -> list[nn.Module]:
    """Return layers that halve the sides of a map."""
    convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1)]
