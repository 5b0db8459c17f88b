# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Densities of the features of normal images, and distances from them (paper, section 2.4)."""

from typing import Literal

import torch
from sklearn.covariance import LedoitWolf

from anomalib_mediclip.models.components.fitted_state import FittedState

DensityType = Literal["gaussian", "kde"]

LEAST_VARIANCE = 1e-6  # as a share of the largest that the mean variance of unit vectors can have, 1 / C
LEAST_DISTANCE = 1e-12  # gradients of distances of 0 are undefined
SHARPNESS = 10.0  # of the kernels; the authors' earlier code


class GaussianDensity(FittedState):
    """Gaussian with the covariance of Ledoit and Wolf; the distance is that of Mahalanobis.

    The shrinkage follows from the data: towards all directions alike where there are fewer features than channels.
    The covariance is never inverted: with S = L L' the distance is the length of L^-1 (z - m).

    Attributes:
        mean (torch.Tensor): Mean m, ``(C,)``.
        whitening (torch.Tensor): L^-1, lower triangular, ``(C, C)``.

    Example:
        >>> density = GaussianDensity()
        >>> density.fit(torch.nn.functional.normalize(torch.eye(4)))
        >>> distance, gradient = density(density.mean[None])
        >>> distance
        tensor([0.])
    """

    CONTENT = ("mean", "whitening")

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(0)
        self.whitening = torch.zeros(0, 0)

    def fit(self, features: torch.Tensor) -> None:
        """Estimate mean and covariance.

        Args:
            features (torch.Tensor): Unit vectors ``(N, C)``, of normal images only.
        """
        vectors = features.double().cpu()
        width = vectors.shape[1]
        centred = vectors - vectors.mean(dim=0)
        covariance = torch.zeros(width, width, dtype=torch.float64)
        if len(vectors) > 1:  # one vector has none
            covariance += torch.from_numpy(LedoitWolf(assume_centered=True).fit(centred.numpy()).covariance_)
        covariance += LEAST_VARIANCE / width * torch.eye(width, dtype=torch.float64)
        factor = torch.linalg.cholesky(covariance)
        whitening = torch.linalg.solve_triangular(factor, torch.eye(width, dtype=torch.float64), upper=False)
        self.mean = vectors.mean(dim=0).to(features)
        self.whitening = whitening.to(features)

    def forward(self, unit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute distances.

        Args:
            unit (torch.Tensor): Unit vectors z ``(B, C)``.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Distances d ``(B,)``, 0 or more, and their gradients with respect to z,
            ``(B, C)``.
        """
        whitened = (unit - self.mean) @ self.whitening.T
        distance = whitened.square().sum(dim=1).sqrt()
        return distance, (whitened @ self.whitening) / distance.clamp(min=LEAST_DISTANCE)[:, None]


class KernelDensity(FittedState):
    """Kernel density of the authors' earlier code; the distance is s = -1/g log(mean over y of exp(-g |z - y|^2)).

    g = 10 / (C v), with v the variance of all entries. It is never singular, and s is 0 or more.

    Attributes:
        vectors (torch.Tensor): Unit vectors y ``(N, C)``.
        gamma (torch.Tensor): g, a scalar.

    Example:
        >>> density = KernelDensity()
        >>> density.fit(torch.eye(2)[:1])
        >>> density(torch.eye(2))[0]
        tensor([0., 2.])
    """

    CONTENT = ("vectors", "gamma")

    def __init__(self) -> None:
        super().__init__()
        self.vectors = torch.zeros(0, 0)
        self.gamma = torch.zeros(0)

    def fit(self, features: torch.Tensor) -> None:
        """Keep the features, and find the width of the kernels.

        Args:
            features (torch.Tensor): Unit vectors ``(N, C)``, of normal images only.
        """
        self.vectors = features.clone()
        self.gamma = (SHARPNESS / (features.shape[1] * features.var(correction=0).clamp(min=LEAST_DISTANCE)))[None]

    def forward(self, unit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute distances; see :meth:`GaussianDensity.forward`."""
        offsets = unit[:, None] - self.vectors
        exponents = -self.gamma * offsets.square().sum(dim=2)
        largest = exponents.amax(dim=1, keepdim=True)  # written out: exporters know no logsumexp of a mean
        terms = (exponents - largest).exp()
        distance = (-largest[:, 0] - terms.mean(dim=1).log()) / self.gamma
        weights = terms / terms.sum(dim=1, keepdim=True)
        return distance.clamp(min=0), 2 * (weights[..., None] * offsets).sum(dim=1)


DENSITIES: dict[str, type[GaussianDensity] | type[KernelDensity]] = {"gaussian": GaussianDensity, "kde": KernelDensity}


def make_density(density: DensityType) -> GaussianDensity | KernelDensity:
    """Return an empty density.

    Args:
        density (DensityType): ``"gaussian"`` or ``"kde"``.

    Returns:
        GaussianDensity | KernelDensity: Density.

    Raises:
        ValueError: If there is no such density.
    """
    if density not in DENSITIES:
        msg = f"density={density!r}: use one of {', '.join(DENSITIES)}."
        raise ValueError(msg)
    return DENSITIES[density]()


def unit_features(feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pool a feature map, and divide by the length.

    Args:
        feature_map (torch.Tensor): Feature maps A ``(B, C, h, w)``.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Unit vectors z = f / |f| ``(B, C)``, and the lengths |f| ``(B, 1)``, where f
        is the mean of A over positions.
    """
    pooled = feature_map.mean(dim=(2, 3))
    length = pooled.square().sum(dim=1, keepdim=True).sqrt().clamp(min=LEAST_DISTANCE)
    return pooled / length, length
