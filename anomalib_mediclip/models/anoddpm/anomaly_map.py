# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""From an image and its reconstruction to a map and a score (paper, section 3.3)."""

import torch
from anomalib.data import InferenceBatch
from torch import nn


class AnomalyMapGenerator(nn.Module):
    """The map is the squared difference, divided by its largest possible value; the image score is the map's mean.

    The paper and the official code have no score of an image.

    Example:
        >>> import torch
        >>> predictions = AnomalyMapGenerator()(torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2))
        >>> predictions.pred_score
        tensor([1.])
    """

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> InferenceBatch:
        """Compute map and score.

        Args:
            images (torch.Tensor): Images ``(B, 1, H, W)`` in [-1, 1].
            reconstructions (torch.Tensor): The same images, reconstructed.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both in [0, 1].
        """
        anomaly_map = (images - reconstructions).square() / 4
        return InferenceBatch(pred_score=anomaly_map.mean(dim=(1, 2, 3)), anomaly_map=anomaly_map)
