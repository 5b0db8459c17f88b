# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Poisson image editing against the exact solution."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve

from anomalib_mediclip.synthesis.masks import draw_perlin_mask
from anomalib_mediclip.synthesis.poisson import membrane, poisson_blend


def exact_membrane(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Solve the discrete Laplace equation with a sparse direct solver."""
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    matrix, right = diags(np.zeros(mask.sum())), np.zeros(mask.sum())
    pairs = [((slice(1, None), slice(None)), (slice(None, -1), slice(None)))]
    pairs += [(b, a) for a, b in pairs]
    pairs += [(a[::-1], b[::-1]) for a, b in pairs]
    for here, there in pairs:
        a, b, value = number[here], number[there], values[there]
        inner, rim = (a >= 0) & (b >= 0), (a >= 0) & (b < 0)
        matrix -= coo_matrix((np.ones(inner.sum()), (a[inner], b[inner])), matrix.shape)
        matrix += diags(np.bincount(a[a >= 0], minlength=mask.sum()).astype(float))
        np.add.at(right, a[rim], value[rim])
    result = np.zeros(mask.shape)
    result[mask] = spsolve(matrix.tocsc(), right)
    return result


def masks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rectangle = np.zeros((90, 70), bool)
    rectangle[1:-1, 1:-1] = True
    at_border = np.ones((60, 75), bool)
    at_border[-1] = False
    blobs = gaussian_filter(rng.standard_normal((101, 134)), 9) > 0
    speckle = rng.random((40, 40)) > 0.4
    single = np.zeros((9, 9), bool)
    single[4, 4] = True
    perlin = np.pad(draw_perlin_mask(rng, (224, 224), (0.3, 0.6)), 1)
    return {
        "rectangle": rectangle,
        "at the border": at_border,
        "blobs": blobs,
        "speckle": speckle,
        "single": single,
        "perlin": perlin,
    }


@pytest.mark.parametrize("name", masks())
def test_membrane_agrees_with_the_exact_solution(name):
    mask = masks()[name]
    values = np.random.default_rng(1).standard_normal(mask.shape)
    values = (gaussian_filter(values, 4) * 3 + 0.1 * values).clip(-1, 1).astype(np.float32)
    assert np.abs(membrane(values, mask) - exact_membrane(values, mask)).max() < 0.02


@pytest.mark.parametrize("name", masks())
def test_patch_that_differs_by_a_constant_gives_back_the_image(name):
    mask = masks()[name]
    image = np.random.default_rng(2).uniform(0.3, 0.7, (*mask.shape, 3)).astype(np.float32)
    assert poisson_blend(image, image + np.float32(0.25), mask) == pytest.approx(image, abs=1e-5)


def test_gradients_of_the_patch_are_kept_and_the_outside_is_untouched():
    mask = masks()["rectangle"]
    rng = np.random.default_rng(3)
    image = rng.uniform(0.4, 0.6, (*mask.shape, 1)).astype(np.float32)
    patch = rng.uniform(0.4, 0.6, (*mask.shape, 1)).astype(np.float32)
    blended = poisson_blend(image, patch, mask)
    assert np.array_equal(blended[~mask], image[~mask])
    change = (blended - patch)[2:-2, 2:-2, 0]
    laplacian = 4 * change[1:-1, 1:-1] - change[:-2, 1:-1] - change[2:, 1:-1] - change[1:-1, :-2] - change[1:-1, 2:]
    assert np.abs(laplacian).max() < 5e-3


def test_mask_without_a_rim_adds_nothing():
    assert not membrane(np.ones((20, 20), np.float32), np.ones((20, 20), bool)).any()
    assert not membrane(np.ones((20, 20), np.float32), np.zeros((20, 20), bool)).any()
