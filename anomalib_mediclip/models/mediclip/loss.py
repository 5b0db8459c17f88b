# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Focal loss plus dice loss (paper, Eq. 3), with the constants of the official code."""

import torch
from torch import nn

FOCUS = 2.0  # exponent gamma of the focal loss
PROBABILITY_FLOOR = 1e-5  # keeps the logarithm finite, and smooths the one-hot target
DICE_SMOOTHING = 1.0


class MediCLIPLoss(nn.Module):
    """Loss = focal([S_n, S_a], Y) + dice(S_a, Y).

    Example:
        >>> import torch
        >>> mask = torch.zeros(1, 8, 8)
        >>> certain = torch.stack([torch.ones(1, 8, 8), torch.zeros(1, 8, 8)], dim=1)
        >>> bool(MediCLIPLoss()(certain, mask) < 1e-3)
        True
    """

    def forward(self, probabilities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch.

        Args:
            probabilities (torch.Tensor): S_n and S_a of shape ``(B, 2, H, W)``, in [0, 1].
            mask (torch.Tensor): Anomaly mask Y of shape ``(B, H, W)``, float in [0, 1].

        Returns:
            torch.Tensor: Scalar.
        """
        return focal_loss(probabilities, mask) + dice_loss(probabilities[:, 1], mask)


def focal_loss(probabilities: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Focal loss (Lin et al., 2017) with gamma 2 and no class weights, averaged over all pixels.

    A soft label counts as anomalous only where it reaches 1: the official code cuts labels to integers.

    Args:
        probabilities (torch.Tensor): S_n and S_a of shape ``(B, 2, H, W)``, in [0, 1].
        mask (torch.Tensor): Anomaly mask of shape ``(B, H, W)``, float in [0, 1].

    Returns:
        torch.Tensor: Scalar.
    """
    anomalous = (mask >= 1).to(probabilities.dtype)
    one_hot = torch.stack([1 - anomalous, anomalous], dim=1).clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    true_class = (one_hot * probabilities).sum(dim=1) + PROBABILITY_FLOOR
    return -((1 - true_class) ** FOCUS * true_class.log()).mean()


def dice_loss(anomaly_map: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Dice loss of every image, averaged over the batch.

    Args:
        anomaly_map (torch.Tensor): S_a of shape ``(B, H, W)``, in [0, 1].
        mask (torch.Tensor): Anomaly mask of shape ``(B, H, W)``, float in [0, 1].

    Returns:
        torch.Tensor: Scalar between 0 and 1.
    """
    prediction, target = anomaly_map.flatten(1), mask.flatten(1)
    intersection = (prediction * target).sum(dim=1)
    dice = (2 * intersection + DICE_SMOOTHING) / (prediction.sum(dim=1) + target.sum(dim=1) + DICE_SMOOTHING)
    return (1 - dice).mean()
