# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Task GaussIntensityChange: brighter or darker tissue, as in tumours and cysts (paper, equation 4)."""

from dataclasses import dataclass

import cv2
import numpy as np

from anomalib_mediclip.synthesis.masks import Array, Mask, Size

# Official code: sides of the patch as fractions of the image side; blur of the noise in pixels at 224 x 224.
PATCH_SIDES = (0.3, 0.8)
NOISE_SIGMAS = (4.0, 7.0)
REFERENCE_SIDE = 224


@dataclass(frozen=True)
class IntensityChange:
    """Random parameters of one change of intensity.

    Attributes:
        gamma (float): Intensity variation factor.
        noise (Array): White standard normal noise of shape ``(H, W)``.
        noise_sigma (float): Standard deviation of the Gaussian filter of the noise, in pixels.
        feather_sigma (float): Standard deviation of the Gaussian filter of the mask, in pixels.
    """

    gamma: float
    noise: Array
    noise_sigma: float
    feather_sigma: float


def draw_intensity_change(rng: np.random.Generator, image_size: Size) -> IntensityChange:
    """Draw gamma uniformly from [-0.6, -0.4) or [0.4, 0.6), the noise and the two blurs."""
    scale = float(np.sqrt(image_size[0] * image_size[1])) / REFERENCE_SIDE
    return IntensityChange(
        gamma=rng.choice((-1, 1)) * rng.uniform(0.4, 0.6),
        noise=rng.standard_normal(image_size, dtype=np.float32),
        noise_sigma=rng.choice(NOISE_SIGMAS) * scale,
        feather_sigma=rng.uniform(1, 4) * scale,
    )


def smooth_noise(noise: Array, sigma: float, normalise: bool = False) -> Array:
    """Binarise noise at 0 and blur it: sigma-hat of equation 4.

    Args:
        noise (Array): White noise of shape ``(H, W)``.
        sigma (float): Standard deviation of the Gaussian filter in pixels.
        normalise (bool): Stretch the result to [0, 1] (official code). Otherwise it stays close to its mean, 0.5.

    Returns:
        Array: Smooth noise of shape ``(H, W)`` in [0, 1].
    """
    smooth = cv2.GaussianBlur((noise >= 0).astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return (smooth - smooth.min()) / np.ptp(smooth) if normalise else smooth


def feather_mask(mask: Mask, sigma: float) -> Array:
    """Blur the edge of a mask inwards (official code).

    The patch is reflected at its border, so that a mask cut off by the patch keeps a hard edge there.

    Args:
        mask (Mask): Boolean mask of shape ``(h, w)``.
        sigma (float): Standard deviation of the Gaussian filter in pixels.

    Returns:
        Array: Weights of shape ``(h, w)`` in [0, 1], zero outside the mask.
    """
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT) * mask


def change_intensity(patch: Array, weights: Array, noise: Array, gamma: float) -> Array:
    """Apply equation 4: ``X (1 - Y) + (X + gamma sigma-hat) Y``, limited to [0, 1].

    Args:
        patch (Array): Patch of the image, ``(h, w, C)``, values in [0, 1].
        weights (Array): Mask ``Y`` as 0 and 1, or feathered, ``(h, w)``.
        noise (Array): Smooth noise sigma-hat of the patch, ``(h, w)``.
        gamma (float): Intensity variation factor.

    Returns:
        Array: Patch of shape ``(h, w, C)``, values in [0, 1].

    Example:
        >>> patch, inside, noise = np.full((1, 2, 1), 0.25, "f"), np.array([[0, 1]], "f"), np.full((1, 2), 0.5, "f")
        >>> change_intensity(patch, inside, noise, gamma=0.5).ravel().tolist()
        [0.25, 0.5]
    """
    change = np.float32(gamma) * noise * weights
    return np.clip(patch + change[..., None], 0, 1)
