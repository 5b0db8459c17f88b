# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""From an image, its reconstruction and the realness of that to a map and a score, in units of the support set."""

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import GaussianBlur2d
from torch import nn

from anomalib_mediclip.models.components.fitted_state import FittedState

SMOOTHING = 4.0  # sigma in pixels
LEAST_DEVIATION = 1e-6


class SupportScale(FittedState):
    """Mean and standard deviation over the support set, by which scores and maps become comparable numbers.

    They change no order: not that of images, and not that of pixels.

    Attributes:
        realness (torch.Tensor): Mean and standard deviation ``(2,)`` of the realness of reconstructions.
        error (torch.Tensor): The same of the pixels of the smoothed error.
    """

    CONTENT = ("realness", "error")

    def __init__(self) -> None:
        super().__init__()
        self.realness, self.error = torch.zeros(0), torch.zeros(0)

    def take(self, realness: torch.Tensor, errors: torch.Tensor) -> None:
        """Take the scale of normal images.

        Args:
            realness (torch.Tensor): Realness ``(N,)`` of reconstructions of normal images.
            errors (torch.Tensor): Their smoothed errors ``(N, 1, H, W)``.
        """
        self.realness, self.error = mean_and_deviation(realness), mean_and_deviation(errors)


class AnomalyMapGenerator(nn.Module):
    """Turn errors into a map, and realness into a score.

    The map is not the method's: it has none, and its authors call that a limitation. This one is the absolute error
    |image - reconstruction|, smoothed as the maps of SimpleNet are. Image and reconstruction are never compared for the
    score.

    The paper's score is 1 - sigmoid((D - m) / s) in the end, with m and s from training images. The score here is the
    logit of that: in float32 the sigmoid would make distant scores equal.

    Example:
        >>> import torch
        >>> generator, scale = AnomalyMapGenerator(), SupportScale()
        >>> scale.take(torch.tensor([1.0, 3.0]), torch.zeros(1, 1, 32, 32))
        >>> error = generator.smoothed_error(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
        >>> generator(torch.tensor([2.0]), error, scale).pred_score
        tensor([-0.])
    """

    def __init__(self) -> None:
        super().__init__()
        self.smooth = GaussianBlur2d(sigma=SMOOTHING)

    def smoothed_error(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Compare images with their reconstructions.

        Args:
            images (torch.Tensor): Grey images ``(B, 1, H, W)`` in [0, 1], each side at least 17.
            reconstructions (torch.Tensor): Their reconstructions, same shape and range.

        Returns:
            torch.Tensor: Smoothed absolute error, same shape and range.
        """
        smoothed: torch.Tensor = self.smooth((images - reconstructions).abs())
        return smoothed

    def forward(self, realness: torch.Tensor, errors: torch.Tensor, scale: SupportScale) -> InferenceBatch:
        """Compute map and score.

        Args:
            realness (torch.Tensor): Realness ``(B,)`` of reconstructions.
            errors (torch.Tensor): Smoothed errors ``(B, 1, H, W)``.
            scale (SupportScale): Mean and standard deviation of both on the support set.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both unbounded, about 0 for normal
            images; higher means more anomalous.
        """
        score = -(realness - scale.realness[0]) / scale.realness[1]
        return InferenceBatch(pred_score=score, anomaly_map=(errors - scale.error[0]) / scale.error[1])


def mean_and_deviation(values: torch.Tensor) -> torch.Tensor:
    """Return mean and standard deviation.

    Args:
        values (torch.Tensor): Numbers, any shape.

    Returns:
        torch.Tensor: Both, ``(2,)``. The deviation is at least 1e-6, and 1 where there is one number only.

    Example:
        >>> mean_and_deviation(torch.tensor([5.0, 5.0])), mean_and_deviation(torch.tensor([5.0]))
        (tensor([5.0000e+00, 1.0000e-06]), tensor([5., 1.]))
    """
    deviation = values.std().clamp(min=LEAST_DEVIATION) if values.numel() > 1 else torch.ones_like(values.sum())
    return torch.stack([values.mean(), deviation])
