# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Simplex noise of several scales (paper, section 3.2): OpenSimplex in three dimensions, for many images at once."""

import itertools
from dataclasses import dataclass

import torch

STRETCH, SQUISH = -1 / 6, 1 / 3  # between the lattice of cubes and that of simplices
NORM = 103.0  # of OpenSimplex; values are then within -1 and 1
# directions of gradients, in the order of OpenSimplex
GRADIENTS = torch.tensor(
    [
        [sign * (11 if axis == place else 4) for place, sign in enumerate((x, y, z))]
        for z, y, x in itertools.product((1, -1), (1, -1), (-1, 1))
        for axis in range(3)
    ],
    dtype=torch.float32,
)


@dataclass(frozen=True)
class Scales:
    """Scales of the noise.

    Attributes:
        wavelength (float): Of the first octave in pixels; each further one has half of it.
        octaves (int): Number of octaves.
        persistence (float): Amplitude of an octave as a share of that of the octave before.
    """

    wavelength: float = 64.0
    octaves: int = 6
    persistence: float = 0.8


def draw_permutations(number: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the permutations that tell fields apart.

    Args:
        number (int): Number of fields.
        generator (torch.Generator): Source of the draws, on the CPU.

    Returns:
        torch.Tensor: Permutations of 0 to 255, int64 of shape ``(number, 256)``.
    """
    return torch.stack([torch.randperm(256, generator=generator) for _ in range(number)])


def simplex_fields(
    permutations: torch.Tensor, times: torch.Tensor, size: tuple[int, int], scales: Scales
) -> torch.Tensor:
    """Compute fields of noise: the sum of octaves, each in its own amplitude.

    A field is not normalised: with six octaves its standard deviation is about 0.49, and its values hardly ever leave
    ±2. The diffusion time is the third coordinate. Fields of neighbouring times are still unlike each other, because
    each has its own permutation, as in the official code.

    Args:
        permutations (torch.Tensor): One permutation of 0 to 255 for each field, int64 of shape ``(B, 256)``.
        times (torch.Tensor): Diffusion time of each field, of shape ``(B,)``.
        size (tuple[int, int]): Height and width in pixels.
        scales (Scales): Scales.

    Returns:
        torch.Tensor: Noise ``(B, 1, H, W)``, float32, on the device of the permutations.

    Example:
        >>> permutation = draw_permutations(1, torch.Generator().manual_seed(0))
        >>> field = simplex_fields(permutation, torch.zeros(1), (64, 64), Scales())
        >>> field.shape, bool(field.abs().max() < 2)
        (torch.Size([1, 1, 64, 64]), True)
    """
    height, width = size
    field = torch.zeros(len(permutations), height, width, device=permutations.device)
    y, x = (torch.arange(side, dtype=torch.float64, device=permutations.device) for side in size)
    for octave in range(scales.octaves):
        wavelength = scales.wavelength / 2**octave
        points = torch.broadcast_tensors(
            (x / wavelength)[None, None, :],
            (y / wavelength)[None, :, None],
            (times.to(permutations.device, torch.float64) / wavelength)[:, None, None],
        )
        field += scales.persistence**octave * simplex(permutations, torch.stack(points))
    return field[:, None]


def simplex(permutations: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Evaluate OpenSimplex noise: each lattice point within a distance of sqrt(2) adds its gradient, faded out.

    Args:
        permutations (torch.Tensor): Permutations of 0 to 255, int64 of shape ``(B, 256)``.
        points (torch.Tensor): Coordinates x, y and z, float64 of shape ``(3, B, ...)``.

    Returns:
        torch.Tensor: Noise of shape ``(B, ...)``, float32, within -1 and 1.
    """
    base = (points + STRETCH * points.sum(dim=0)).floor()
    inside = (points - base - SQUISH * base.sum(dim=0)).float()
    corner = base.long()
    gradients = GRADIENTS.to(points.device)
    total = torch.zeros_like(inside[0])
    for offset in OFFSETS:
        difference = inside - inside.new_tensor([part + SQUISH * sum(offset) for part in offset]).view(
            3, *[1] * (inside.ndim - 1)
        )
        fading = (2 - difference.square().sum(dim=0)).clamp(min=0).pow(4)
        index = torch.zeros_like(corner[0])
        for axis, part in enumerate(offset):
            index = _permuted(permutations, index + corner[axis] + part)
        total += fading * (gradients[index % len(gradients)].movedim(-1, 0) * difference).sum(dim=0)
    return total / NORM


def _permuted(permutations: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Look numbers up, each in the permutation of its field."""
    return permutations.gather(1, (index & 255).flatten(1)).view_as(index)


def _reaching_offsets() -> list[tuple[int, ...]]:
    """Return the lattice points that reach into a cell, relative to its corner: 26 of the 64 around it."""
    steps = torch.linspace(0, 1, 17)
    cell = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).flatten(1)  # in the lattice of cubes
    found = []
    for offset in itertools.product((-1, 0, 1, 2), repeat=3):
        difference = cell - torch.tensor(offset)[:, None]
        distance = (difference + SQUISH * difference.sum(dim=0)).square().sum(dim=0).min()
        if distance < 2 - 1e-4:  # others touch the cell at most
            found.append(offset)
    return found


OFFSETS = _reaching_offsets()
