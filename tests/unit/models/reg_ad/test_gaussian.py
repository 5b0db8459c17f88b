# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Gaussians at positions against their definition, in both forms."""

import numpy as np
import pytest
import torch
from anomalib.models.components import MultiVariateGaussian
from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator
from scipy.spatial.distance import mahalanobis

from anomalib_mediclip.models.reg_ad.gaussian import PositionGaussians

RIDGE = 0.01


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(positions: int, number: int, width: int) -> torch.Tensor:
    """Return vectors ``(positions, number, width)`` whose channels depend on each other, far from zero."""
    return normal(positions, number, width) @ normal(width, width, seed=1) + 3


def fitted(vectors: torch.Tensor, ridge: float = RIDGE, **options) -> PositionGaussians:
    gaussians = PositionGaussians()
    gaussians.fit(vectors.__getitem__, len(vectors), ridge, **options)
    return gaussians


def by_definition(vectors: torch.Tensor, tested: torch.Tensor, ridge: float = RIDGE) -> torch.Tensor:
    """Return distances ``(B, P)`` of ``(B, C, P)``, one position and one image after the other."""
    found = torch.empty(tested.shape[0], len(vectors), dtype=torch.float64)
    for position, known in enumerate(vectors.numpy()):
        covariance = np.atleast_2d(np.cov(known.T)) + ridge * np.eye(known.shape[1])
        inverse, mean = np.linalg.inv(covariance), known.mean(axis=0)
        for image, vector in enumerate(tested[:, :, position].numpy()):
            found[image, position] = mahalanobis(vector, mean, inverse)
    return found


@pytest.mark.parametrize("number", [2, 5, 6, 7, 30])
def test_distances_are_those_of_mahalanobis_with_many_and_with_few_vectors(number: int) -> None:
    vectors, tested = correlated(3, number, 6), normal(4, 6, 3, seed=2) * 5
    gaussians = fitted(vectors)
    assert gaussians.factor.shape == (3, min(number, 6), 6)
    torch.testing.assert_close(gaussians(tested), by_definition(vectors, tested), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("number", [5, 30])
def test_single_precision_is_good_enough(number: int) -> None:
    vectors, tested = correlated(3, number, 6), normal(4, 6, 3, seed=2) * 5
    found = fitted(vectors.float())(tested.float())
    torch.testing.assert_close(found.double(), by_definition(vectors, tested), atol=0, rtol=1e-4)


@pytest.mark.parametrize("number", [8, 40])
def test_distances_agree_with_padim_of_anomalib(number: int) -> None:
    vectors, tested = correlated(6, number, 10), normal(2, 10, 6, seed=3)
    reference = MultiVariateGaussian()
    mean, inverse = reference(vectors.permute(1, 2, 0).reshape(number, 10, 2, 3).float())
    expected = AnomalyMapGenerator.compute_distance(tested.reshape(2, 10, 2, 3).float(), [mean, inverse])
    found = fitted(vectors, ridge=0.01 + 1e-5)(tested)  # anomalib adds the second for the inverse
    torch.testing.assert_close(found.float(), expected.flatten(1), atol=0, rtol=2e-3)


@pytest.mark.parametrize("number", [4, 30])
def test_chunks_change_nothing(number: int) -> None:
    vectors, tested = correlated(7, number, 6), normal(2, 6, 7, seed=2)
    whole = fitted(vectors, chunk=7)
    for chunk in (1, 3, 64):
        torch.testing.assert_close(fitted(vectors, chunk=chunk)(tested), whole(tested), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("number", [1, 4, 30])
def test_the_mean_has_distance_0(number: int) -> None:
    vectors = correlated(3, number, 6).float()
    assert fitted(vectors)(vectors.double().mean(dim=1).float().T[None]).abs().max() == 0


@pytest.mark.parametrize("number", [1, 2, 9])
def test_equal_vectors_leave_the_ridge_alone(number: int) -> None:
    vectors = torch.ones(2, number, 4)
    found = fitted(vectors, ridge=0.25)(torch.tensor([1.0, 1.0, 1.0, 4.0])[None, :, None].expand(1, 4, 2))
    torch.testing.assert_close(found, torch.full((1, 2), 3 / 0.5))


def test_rounding_gives_no_negative_squares() -> None:
    vectors = 1000 * correlated(1, 5, 200).float()
    found = fitted(vectors)(vectors[0].T[None].permute(2, 1, 0).contiguous())
    assert found.isfinite().all()
    assert found.min() >= 0


def test_few_vectors_take_less_memory() -> None:
    few, many = fitted(normal(2, 10, 50).float()), fitted(normal(2, 60, 50).float())
    assert few.factor.nbytes * 5 == many.factor.nbytes


@pytest.mark.parametrize("number", [4, 30])
def test_state_is_saved_and_loaded(number: int) -> None:
    gaussians, loaded = fitted(correlated(3, number, 6).float()), PositionGaussians()
    loaded.load_state_dict(gaussians.state_dict())
    tested = normal(2, 6, 3).float()
    assert torch.equal(loaded(tested), gaussians(tested))
