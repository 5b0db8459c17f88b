# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""From distances at positions to a map of the image and a score (paper, section 3.3; official code)."""

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional

SMOOTHING = 4.0  # sigma in pixels of the image


class AnomalyMapGenerator(nn.Module):
    """Upsample and smooth distances; the image score is the maximum of the map.

    Example:
        >>> batch = AnomalyMapGenerator()(torch.full((2, 1, 4, 4), 3.0), (32, 32))
        >>> batch.anomaly_map.shape, batch.pred_score
        (torch.Size([2, 1, 32, 32]), tensor([3.0000, 3.0000]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.smooth = GaussianBlur2d(sigma=SMOOTHING)

    def forward(self, distances: torch.Tensor, image_size: torch.Size | tuple[int, int]) -> InferenceBatch:
        """Compute map and score.

        Args:
            distances (torch.Tensor): Distances ``(B, 1, h, w)``, 0 or more.
            image_size (torch.Size | tuple[int, int]): Height and width of the map in pixels, each at least 17.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both distances.
        """
        upsampled = functional.interpolate(distances, image_size, mode="bilinear", align_corners=False)
        anomaly_map = self.smooth(upsampled)
        return InferenceBatch(pred_score=anomaly_map.amax(dim=(1, 2, 3)), anomaly_map=anomaly_map)
