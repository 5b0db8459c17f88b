# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A Gaussian at every position of the feature maps of normal images, and distances from it (paper, section 3.3)."""

from collections.abc import Callable

import torch

from anomalib_mediclip.models.components.feature_cache import progress_bar
from anomalib_mediclip.models.components.fitted_state import FittedState

CHUNK = 64  # positions


class PositionGaussians(FittedState):
    """Mean m and covariance S + ridge I of the vectors at each position; the distance d is that of Mahalanobis.

    No covariance is inverted. With N vectors of C channels, d^2 = a |x - m|^2 + s |F (x - m)|^2, where

    * F = L^-1 ``(C, C)``, a = 0 and s = 1, from the Cholesky factor of the covariance, L L' = S + ridge I;
    * or, where N - 1 < C, so that S is singular, F = G^-1 Y ``(N, C)``, a = 1 / ridge and s = -1 / ridge, with Y the
      centred vectors ``(N, C)`` and G G' = Y Y' + ridge (N - 1) I. By Woodbury's identity this is the same distance, in
      N / C of the memory.

    Attributes:
        mean (torch.Tensor): Means m, ``(P, C)``.
        factor (torch.Tensor): F, ``(P, C or N, C)``.
        weights (torch.Tensor): a and s, ``(2,)``.

    Example:
        >>> gaussians = PositionGaussians()
        >>> vectors = torch.tensor([[[-1.0], [1.0]]])
        >>> gaussians.fit(vectors.__getitem__, positions=1, ridge=2.0)
        >>> gaussians(torch.tensor([[[4.0]]]))  # variance 2, ridge 2
        tensor([[2.]])
    """

    CONTENT = ("mean", "factor", "weights")

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(0, 0)
        self.factor = torch.zeros(0, 0, 0)
        self.weights = torch.zeros(0)

    def fit(
        self,
        vectors_at: Callable[[slice], torch.Tensor],
        positions: int,
        ridge: float,
        title: str | None = None,
        chunk: int = CHUNK,
    ) -> None:
        """Estimate means and covariances (unbiased); computed in float64, kept in the type of the vectors.

        Args:
            vectors_at (Callable[[slice], torch.Tensor]): Returns the vectors ``(p, N, C)`` at some positions.
            positions (int): Number of positions P.
            ridge (float): What is added to the variances, positive.
            title (str | None, optional): Title of a progress bar. Defaults to ``None``: no bar.
            chunk (int, optional): Positions whose covariances are in memory at once. Defaults to ``64``.
        """
        self.factor = torch.zeros(0, 0, 0)  # may be large: make room first
        progress = progress_bar(title, positions, "position")
        for start in range(0, positions, chunk):
            here = slice(start, min(start + chunk, positions))
            vectors = vectors_at(here)
            # devices without float64 leave this to the CPU
            exact = (vectors.cpu() if vectors.device.type == "mps" else vectors).double()
            mean = exact.mean(dim=1, keepdim=True)
            factor = _factor(exact - mean, ridge)
            if start == 0:
                self.mean = vectors.new_empty(positions, mean.shape[2])
                self.factor = vectors.new_empty(positions, *factor.shape[1:])
                self.weights = vectors.new_tensor((1 / ridge, -1 / ridge) if _is_singular(vectors) else (0.0, 1.0))
            self.mean[here], self.factor[here] = mean[:, 0].to(vectors), factor.to(vectors)
            progress.update(here.stop - start)
        progress.close()

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Compute distances.

        Args:
            vectors (torch.Tensor): Vectors ``(B, C, P)``.

        Returns:
            torch.Tensor: Distances d ``(B, P)``, 0 or more.
        """
        offsets = vectors.permute(2, 1, 0) - self.mean[..., None]
        lengths = offsets.square().sum(dim=1)
        projected = (self.factor @ offsets).square().sum(dim=1)
        squares = self.weights[0] * lengths + self.weights[1] * projected
        return squares.clamp(min=0).sqrt().T  # rounding may leave less than nothing


def _is_singular(vectors: torch.Tensor) -> bool:
    """Tell whether vectors ``(p, N, C)`` are too few for a covariance of full rank."""
    return vectors.shape[1] <= vectors.shape[2]


def _factor(centred: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return F of centred vectors ``(p, N, C)``."""
    number, width = centred.shape[1:]
    freedom = max(number - 1, 1)
    if _is_singular(centred):
        gram = centred @ centred.mT + ridge * freedom * torch.eye(number).to(centred)
        return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), centred, upper=False)
    identity = torch.eye(width).to(centred)
    covariance = centred.mT @ centred / freedom + ridge * identity
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
