# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Densities of CutPaste against scikit-learn and autograd."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import KernelDensity as KernelDensityOfSklearn
from torch.nn import functional

from anomalib_mediclip.models.cut_paste.density import GaussianDensity, KernelDensity, make_density, unit_features


def unit_vectors(number: int, width: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(number, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(drawn + 1, dim=1)


def test_gaussian_is_the_mahalanobis_distance_under_the_covariance_of_ledoit_and_wolf() -> None:
    normal, seen = unit_vectors(12, 20, 0), unit_vectors(5, 20, 1)  # fewer vectors than channels
    density = GaussianDensity()
    density.fit(normal)
    precision = np.linalg.inv(LedoitWolf().fit(normal.numpy()).covariance_)
    expected = [mahalanobis(vector, normal.numpy().mean(axis=0), precision) for vector in seen.numpy()]
    assert density(seen)[0].tolist() == pytest.approx(expected, rel=1e-3)


def test_gaussian_is_zero_at_the_mean_and_grows_along_an_axis_by_the_precision() -> None:
    normal = unit_vectors(30, 6, 2)
    density = GaussianDensity()
    density.fit(normal)
    mean, axis = normal.mean(dim=0), torch.eye(6, dtype=torch.float64)[4]
    precision = np.linalg.inv(LedoitWolf().fit(normal.numpy()).covariance_)
    distances, _ = density(torch.stack([mean, mean + 0.3 * axis, mean - 3 * axis]))
    expected = [0, 0.3 * precision[4, 4] ** 0.5, 3 * precision[4, 4] ** 0.5]
    assert distances.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_kernel_density_is_that_of_scikit_learn_up_to_a_constant() -> None:
    normal, seen = unit_vectors(9, 7, 3), unit_vectors(6, 7, 4)
    density = KernelDensity()
    density.fit(normal)
    gamma = 10 / (7 * normal.numpy().var())
    reference = KernelDensityOfSklearn(bandwidth=(2 * gamma) ** -0.5).fit(normal.numpy())
    expected = -reference.score_samples(seen.numpy()) / gamma
    found = density(seen)[0].numpy()
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-9, atol=1e-12)
    assert (found >= 0).all()


@pytest.mark.parametrize("name", ["gaussian", "kde"])
def test_gradients_are_those_of_autograd(name) -> None:
    density = make_density(name)
    density.fit(unit_vectors(10, 8, 5))
    seen = unit_vectors(4, 8, 6).requires_grad_()
    distance, gradient = density(seen)
    (expected,) = torch.autograd.grad(distance.sum(), seen)
    torch.testing.assert_close(gradient.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "kde"])
@pytest.mark.parametrize("normal", [torch.ones(1, 5) / 5**0.5, torch.ones(4, 5) / 5**0.5])
def test_one_vector_and_equal_ones_give_finite_distances_in_order(name, normal) -> None:
    density = make_density(name)
    density.fit(normal)
    near, far = functional.normalize(torch.tensor([[1, 1, 1, 1, 1.1], [1, 0, 0, 0, 0]]), dim=1)
    distances, gradients = density(torch.stack([normal[0], near, far]))
    assert distances[0] < 1e-2 * distances[1] < 1e-2 * distances[2] < torch.inf
    assert gradients.isfinite().all()


def test_features_that_are_longer_have_the_same_unit_vector() -> None:
    feature_map = torch.rand(2, 8, 3, 3)
    unit, length = unit_features(feature_map)
    torch.testing.assert_close(unit * length, feature_map.mean(dim=(2, 3)))
    torch.testing.assert_close(unit_features(7 * feature_map)[0], unit)
    assert unit_features(torch.zeros(1, 8, 3, 3))[0].tolist() == [[0.0] * 8]


def test_unknown_density_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"density='gde': use one of gaussian, kde"):
        make_density("gde")
