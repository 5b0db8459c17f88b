# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Seamless blending by Poisson image editing (Perez, Gangnet and Blake, 2003).

Keeping the gradients of the patch while meeting the image at the edge of the mask is the same as adding a membrane to
the patch: the harmonic function that equals (image - patch) along the edge. The membrane is computed in floating point,
coarse to fine; ``cv2.seamlessClone`` works on 8-bit values and fails on masks that touch the border of the image.
"""

import cv2
import numpy as np
import numpy.typing as npt

from anomalib_mediclip.synthesis.masks import Array, Mask

Bits = npt.NDArray[np.uint8]

CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.uint8)
LAPLACIAN = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=np.float32)

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
    inside = np.ascontiguousarray(mask).view(np.uint8)
    rim: Bits = np.asarray(cv2.dilate(inside, CROSS), dtype=np.uint8) & ~inside
    known = (values * rim).astype(np.float32, copy=False)
    if not rim.any() or not mask.any():
        return np.zeros_like(known)
    if max(mask.shape) <= COARSEST_SIDE:
        return _relax(np.full_like(known, known.sum() / rim.sum()), known, inside)
    return _relax(_from_coarse(known, rim, inside), known, inside)


def _from_coarse(known: Array, rim: Bits, inside: Bits) -> Array:
    """Solve at half the resolution, where blocks that hold rim pixels are the rim."""
    rim_pixels = _block_sum(rim)
    coarse_known = _block_sum(known) / np.maximum(rim_pixels, np.float32(1))
    coarse_mask = (_block_sum(inside) > 0) & (rim_pixels == 0)
    coarse = coarse_known + membrane(coarse_known, coarse_mask)
    return cv2.resize(coarse, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)[: inside.shape[0], : inside.shape[1]]


def _relax(guess: Array, known: Array, inside: Bits) -> Array:
    """Solve the Laplace equation in the mask from a first guess; only the box that holds the mask takes part."""
    left, top, width, height = cv2.boundingRect(inside)
    box = slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)
    solution = np.zeros_like(known)
    tolerance = TOLERANCE / max(inside.shape)
    solution[box] = _conjugate_gradients(guess[box], known[box], inside[box].astype(np.float32), tolerance)
    return solution


def _conjugate_gradients(guess: Array, known: Array, weights: Array, tolerance: float) -> Array:
    """Reduce the root mean square residual where the weights are 1 to the tolerance."""
    solution = guess * weights
    residual = -weights * _laplacian(known + solution)
    direction, energy = residual.copy(), cv2.norm(residual, cv2.NORM_L2SQR)
    enough = tolerance**2 * float(weights.sum())
    for _ in range(weights.size):
        if energy <= enough:
            break
        change = _laplacian(direction)
        change *= weights
        step = energy / float(
            np.einsum("ij,ij->", direction, change)
        )  # unlike BLAS the same with any number of threads
        cv2.scaleAdd(direction, step, solution, solution)
        cv2.scaleAdd(change, -step, residual, residual)
        previous, energy = energy, cv2.norm(residual, cv2.NORM_L2SQR)
        cv2.scaleAdd(direction, energy / previous, residual, direction)
    return solution


def _laplacian(values: Array) -> Array:
    """Sum of the differences to the four neighbours of each pixel; beyond the border there are none."""
    return cv2.filter2D(values, -1, LAPLACIAN, borderType=cv2.BORDER_REPLICATE)


def _block_sum(values: Array) -> Array:
    """Sum over blocks of 2 x 2 pixels, of which the last may lie partly beyond the border."""
    height, width = values.shape
    padded = cv2.copyMakeBorder(values, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT)
    rows = padded[0::2] + padded[1::2]
    return rows[:, 0::2] + rows[:, 1::2]
