# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Seamless blending by Poisson image editing (Perez, Gangnet and Blake, 2003).

Keeping the gradients of the patch while meeting the image at the edge of the mask is the same as adding a membrane to
the patch: the harmonic function that equals (image - patch) along the edge. The membrane is computed in floating point,
coarse to fine; ``cv2.seamlessClone`` works on 8-bit values and fails on masks that touch the border of the image.
"""

import cv2
import numpy as np

from anomalib_mediclip.synthesis.masks import Array, Mask

CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32)

# Root mean square residual at which the solution counts as found, times the longest side in pixels: larger masks have
# smoother errors, of which the residual shows less. Errors stay below 0.02 of the range of the boundary values.
TOLERANCE = 0.004
COARSEST_SIDE = 8


def poisson_blend(image: Array, patch: Array, mask: Mask) -> Array:
    """Blend a patch into an image of the same size.

    Args:
        image (Array): Destination of shape ``(H, W, C)``, values in [0, 1].
        patch (Array): What to blend in, ``(H, W, C)``, known in the mask and at the pixels next to it.
        mask (Mask): Boolean mask of shape ``(H, W)``. Where it touches the border, the border is free.

    Returns:
        Array: Blended image of shape ``(H, W, C)``, limited to [0, 1] in the mask and unchanged outside of it.
    """
    difference = np.moveaxis(image - patch, 2, 0)
    correction = np.stack([membrane(channel, mask) for channel in difference], axis=-1)
    return np.where(mask[..., None], np.clip(patch + correction, 0, 1), image)


def membrane(values: Array, mask: Mask) -> Array:
    """Compute the harmonic function in a mask that continues the values next to the mask.

    Args:
        values (Array): Values of shape ``(H, W)``, of which those next to the mask (4-neighbours) are used.
        mask (Mask): Boolean mask of shape ``(H, W)``.

    Returns:
        Array: Harmonic function of shape ``(H, W)``, zero outside the mask, and everywhere if nothing lies next to it.

    Example:
        >>> mask = np.array([[False, True, True, False]])
        >>> membrane(np.array([[0, 9, 9, 3]], dtype=np.float32), mask).round(2).tolist()
        [[0.0, 1.0, 2.0, 0.0]]
    """
    rim = (_neighbour_sum(mask.astype(np.float32)) > 0) & ~mask
    known = np.where(rim, values, 0).astype(np.float32)
    if not rim.any() or not mask.any():
        return np.zeros_like(known)
    if max(mask.shape) <= COARSEST_SIDE:
        return _relax(np.full_like(known, known.sum() / rim.sum()), known, mask)
    return _relax(_from_coarse(known, rim, mask), known, mask)


def _from_coarse(known: Array, rim: Mask, mask: Mask) -> Array:
    """Solve at half the resolution, where blocks that hold rim pixels are the rim."""
    rim_pixels = _block_sum(rim.astype(np.float32))
    coarse_known = _block_sum(known) / np.maximum(rim_pixels, 1)
    coarse_mask = (_block_sum(mask.astype(np.float32)) > 0) & (rim_pixels == 0)
    coarse = coarse_known + membrane(coarse_known, coarse_mask)
    return coarse.repeat(2, axis=0).repeat(2, axis=1)[: mask.shape[0], : mask.shape[1]]


def _relax(guess: Array, known: Array, mask: Mask) -> Array:
    """Solve the Laplace equation in the mask by conjugate gradients, from a first guess."""
    inside: Array = mask.astype(np.float32)
    degree = _neighbour_sum(np.ones_like(inside))
    solution = guess * inside
    residual = inside * (_neighbour_sum(known + solution) - degree * solution)
    direction, energy = residual, _energy(residual)
    enough = (TOLERANCE / max(mask.shape)) ** 2 * inside.sum()
    for _ in range(mask.size):
        if energy <= enough:
            break
        change = inside * (degree * direction - _neighbour_sum(direction))
        step = energy / float((direction * change).sum())
        solution, residual = solution + step * direction, residual - step * change
        previous, energy = energy, _energy(residual)
        direction = residual + (energy / previous) * direction
    return solution


def _neighbour_sum(values: Array) -> Array:
    """Sum of the four neighbours of each pixel; beyond the border there are none."""
    return cv2.filter2D(values, -1, CROSS, borderType=cv2.BORDER_CONSTANT)


def _block_sum(values: Array) -> Array:
    """Sum over blocks of 2 x 2 pixels, of which the last may lie partly beyond the border."""
    padded = np.pad(values, [(0, side % 2) for side in values.shape])
    return padded[0::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 0::2] + padded[1::2, 1::2]


def _energy(values: Array) -> float:
    """Sum of squares; unlike a dot product its rounding does not depend on the number of threads."""
    return float((values * values).sum())
