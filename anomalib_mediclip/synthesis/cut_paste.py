# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Task CutPaste: tissue in the wrong place, as in fractures (paper, section 2.4)."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import grey_closing
from skimage.morphology import reconstruction

from anomalib_mediclip.synthesis.masks import Array, Mask, Size, rotation
from anomalib_mediclip.synthesis.poisson import poisson_blend
from anomalib_mediclip.synthesis.sampling import Spline

Blending = Literal["poisson", "paste"]

# Official code: sides of the patch as fractions of the image side, and the most of the source it is cut from.
PATCH_SIDES = (0.1, 0.6)
MAXIMUM_REACH = 0.8

SQUARE = np.ones((3, 3), dtype=np.uint8)


@dataclass(frozen=True)
class PatchCut:
    """Random parameters of where a patch is cut out of its source.

    Attributes:
        source (int): Number of the source image.
        degrees (float): Rotation.
        scale (float): Pixels of the source to one pixel of the patch.
        position (tuple[float, float]): Row and column of the cut, from 0 (first possible) to 1 (last possible).
    """

    source: int
    degrees: float
    scale: float
    position: tuple[float, float]


def draw_patch_cut(rng: np.random.Generator, sources: int) -> PatchCut:
    """Draw a source, a rotation between -45 and 45 degrees, a scale near 1 and a position (official code)."""
    stretch = 1 + rng.exponential(0.1)
    return PatchCut(
        source=int(rng.integers(sources)),
        degrees=rng.uniform(-45, 45),
        scale=stretch if rng.random() < 0.5 else 1 / stretch,
        position=(rng.random(), rng.random()),
    )


def match_source(source: Array, image: Array) -> Array:
    """Bring a source ``(H', W', C')`` to the size and the number of channels of an image ``(H, W, C)``."""
    if image.shape[2] == 1:
        source = source.mean(axis=2, keepdims=True)
    elif source.shape[2] == 1:
        source = source.repeat(image.shape[2], axis=2)
    if source.shape[:2] == image.shape[:2]:
        return source
    return cv2.resize(source, image.shape[1::-1], interpolation=cv2.INTER_AREA).reshape(image.shape)


def cut_patch(source: Array | Spline, cut: PatchCut, size: Size, mask: Mask | None = None) -> Array:
    """Cut a rotated and scaled patch out of an image.

    Args:
        source (Array | Spline): Image of shape ``(H, W, C)``, or the spline through its pixels.
        cut (PatchCut): Random parameters. The scale is reduced until the cut spans at most 0.8 of the image.
        size (Size): Height ``h`` and width ``w`` of the patch in pixels.
        mask (Mask | None): Mask ``(h, w)``, if only the pixels in and next to it are needed; the others are then 0.

    Returns:
        Array: Patch with a margin of one pixel, ``(h + 2, w + 2, C)``, limited to the range of the source.
    """
    spline = source if isinstance(source, Spline) else Spline(source)
    source_size = np.array(spline.size)
    matrix = cut.scale * rotation(cut.degrees)
    reach = np.abs(matrix) @ size
    shrink = min(1.0, float(np.min(MAXIMUM_REACH * source_size / reach)))
    matrix, reach = shrink * matrix, shrink * reach
    first = np.minimum(matrix * size, 0).sum(axis=1)
    corner = np.array(cut.position) * (source_size - 1 - reach) - first
    needed = np.ones(size, bool) if mask is None else mask
    needed = cv2.dilate(np.pad(needed, 1).view(np.uint8), SQUARE).view(bool)
    values = spline.sample(matrix @ (np.argwhere(needed).T - 1.0) + corner[:, None])
    patch = np.zeros((*needed.shape, values.shape[-1]), np.float32)
    patch[needed] = values.clip(*spline.range)
    return patch


def paste_patch(image: Array, patch: Array, mask: Mask, corner: Size, blending: Blending = "poisson") -> Array:
    """Put a patch into an image where the mask says so.

    Args:
        image (Array): Image of shape ``(H, W, C)``, values in [0, 1].
        patch (Array): Patch with a margin of one pixel, ``(h + 2, w + 2, C)``.
        mask (Mask): Boolean mask of shape ``(h, w)``.
        corner (Size): Row and column of the mask in the image.
        blending (Blending): Seamless, or a hard replacement (official code).

    Returns:
        Array: Image of shape ``(H, W, C)``, unchanged outside the mask.
    """
    rows, columns = (
        slice(max(start - 1, 0), min(start + length + 1, side))
        for start, length, side in zip(corner, mask.shape, image.shape, strict=False)
    )
    in_patch = tuple(slice(s.start - c + 1, s.stop - c + 1) for s, c in zip((rows, columns), corner, strict=True))
    inside, patch, result = np.pad(mask, 1)[in_patch], patch[in_patch], image.copy()
    if blending == "poisson":
        result[rows, columns] = poisson_blend(image[rows, columns], patch, inside)
    else:
        result[rows, columns][inside] = patch[inside]
    return result


def changed_label(before: Array, after: Array, region: Mask) -> Array:
    """Label the pixels that changed by at least one of 256 grey levels (official code).

    The official code subtracts 8-bit images without a sign, so that darker by 1 counts as brighter by 255, and turns
    the difference ``d``, in grey levels, into ``1 - exp(-d² / (2 * 0.2²))``: practically 0 or 1. Gaps and holes of the
    label are closed within each connected part of the region.

    Args:
        before (Array): Image of shape ``(H, W, C)``, values in [0, 1].
        after (Array): Image with the anomaly, ``(H, W, C)``.
        region (Mask): Where something was pasted, ``(H, W)``.

    Returns:
        Array: Soft label of shape ``(H, W)`` in [0, 1].
    """
    difference = _to_bytes(after) - _to_bytes(before)
    level = difference.mean(axis=2, dtype=np.float32) * region
    label: Array = 1 - np.exp(-(level**2) / (2 * 0.2**2))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    for left, top, width, height, _ in boxes[1:]:
        box = label[top : top + height, left : left + width]
        box[:] = _fill_holes(grey_closing(box, size=(3, 3)))
    return label


def _to_bytes(image: Array) -> npt.NDArray[np.uint8]:
    """Convert to 8 bits; the small offset keeps a value that was 8-bit from falling to the level below."""
    levels: npt.NDArray[np.uint8] = (image * 255 + 1e-3).astype(np.uint8)
    return levels


def _fill_holes(label: Array) -> Array:
    """Raise each hole of a label to the lowest level of its rim."""
    seed = np.full_like(label, label.max())
    seed[[0, -1]], seed[:, [0, -1]] = label[[0, -1]], label[:, [0, -1]]  # a hole that reaches the border is none
    filled: Array = reconstruction(seed, label, method="erosion")  # type: ignore[no-untyped-call]
    return filled
