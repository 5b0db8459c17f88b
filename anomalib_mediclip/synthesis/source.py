# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Task Source: tissue pushed outwards from a centre, as by a growing mass (paper, equation 5)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from anomalib_mediclip.synthesis.masks import Array, Mask, Positions, Shape
from anomalib_mediclip.synthesis.sampling import Spline

AlphaDistribution = Literal["uniform", "log_uniform"]

ALPHA_RANGE = (2**0.5, 4.0)


@dataclass(frozen=True)
class SourceDeformation:
    """Random parameters of one deformation.

    Attributes:
        centre (tuple[int, int]): Row and column of the centre in the patch.
        alpha (float): Strength; 1 leaves everything in place.
    """

    centre: tuple[int, int]
    alpha: float


def draw_deformation(
    rng: np.random.Generator,
    mask: Mask,
    alpha_distribution: AlphaDistribution = "uniform",
) -> SourceDeformation:
    """Draw a centre uniformly from the mask, and alpha from [sqrt 2, 4).

    Args:
        rng (np.random.Generator): Source of randomness.
        mask (Mask): Boolean mask of shape ``(h, w)``.
        alpha_distribution (AlphaDistribution): Whether alpha (paper) or its logarithm (official code) is uniform.

    Returns:
        SourceDeformation: Random parameters.
    """
    row, column = np.unravel_index(rng.choice(np.flatnonzero(mask)), mask.shape)
    low, high = ALPHA_RANGE
    alpha = rng.uniform(low, high) if alpha_distribution == "uniform" else 2 ** rng.uniform(np.log2(low), np.log2(high))
    return SourceDeformation((int(row), int(column)), float(alpha))


def source_mapping(shape: Shape, mask: Mask, deformation: SourceDeformation) -> Positions:
    r"""Compute from where each pixel reads its value.

    Equation 5 with ``l`` the pixel, ``c`` the centre and ``r`` the radius of the shape from ``c`` towards ``l``:

    .. math:: \hat l = c + r \frac{l - c}{|l - c|} \left(\frac{|l - c|}{r}\right)^\alpha
                     = c + (l - c) \left(\frac{|l - c|}{r}\right)^{\alpha - 1}

    Pixels outside the mask and on the outermost frame of the patch read from themselves (official code).

    Args:
        shape (Shape): Ellipse or rectangle, which gives the radius.
        mask (Mask): Mask of the shape, ``(h, w)``.
        deformation (SourceDeformation): Centre and alpha.

    Returns:
        Positions: Rows and columns of shape ``(2, h, w)``, in pixels.
    """
    moves = np.zeros_like(mask)
    moves[1:-1, 1:-1] = mask[1:-1, 1:-1]
    mapping = np.indices(mask.shape).astype(np.float64)
    centre = np.array(deformation.centre, dtype=np.float64)[:, None]
    offsets = mapping[:, moves] - centre
    mapping[:, moves] = centre + offsets * _radial_position(shape, mask, centre, offsets) ** (deformation.alpha - 1)
    return mapping


def deform(patch: Array, mask: Mask, mapping: Positions) -> Array:
    """Move the pixels of a patch.

    Args:
        patch (Array): Patch of the image, ``(h, w, C)``, values in [0, 1].
        mask (Mask): Boolean mask, ``(h, w)``, outside of which nothing changes.
        mapping (Positions): From where each pixel reads, ``(2, h, w)``.

    Returns:
        Array: Deformed patch of shape ``(h, w, C)``, values in [0, 1].
    """
    deformed = patch.copy()
    deformed[mask] = Spline(patch).sample(mapping[:, mask]).clip(0, 1)
    return deformed


def _radial_position(
    shape: Shape,
    mask: Mask,
    centre: Positions,
    offsets: Positions,
) -> Positions:
    """Compute ``|l - c| / r``: 0 at the centre, 1 on the edge of the shape and beyond.

    In the units of the shape the edge is ``|a + b / s| = 1`` with ``a`` the centre, ``b`` the offset and ``s`` the
    result. Where the centre lies on the edge the radius is zero; the guarded divisions then give 1: nothing moves.
    """
    a = shape.normalise(centre - (np.array(mask.shape)[:, None] - 1) / 2)
    b = shape.normalise(offsets)
    tiny = np.finfo(np.float64).tiny
    if shape.ellipse:
        projection, length = (a * b).sum(axis=0), (b**2).sum(axis=0)
        root = np.sqrt(np.maximum(projection**2 + (1 - (a**2).sum(axis=0)) * length, 0))
        position = length / np.maximum(root - projection, tiny)
    else:
        position = np.maximum(b / np.maximum(1 - a, tiny), -b / np.maximum(1 + a, tiny)).max(axis=0)
    return np.asarray(position.clip(0, 1))
