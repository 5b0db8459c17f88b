# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""From scores of patches to a map of the image and a score (paper, section 3.6)."""

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional

SMOOTHING = 4.0  # sigma in pixels of the image


class AnomalyMapGenerator(nn.Module):
    """Upsample and smooth the scores of patches; the image score is their maximum before both.

    Map and score have the range of the patches' scores, which is unbounded; the post-processor shows them as
    probabilities (:class:`~anomalib_mediclip.evaluation.LogitCalibrationPostProcessor`).

    Example:
        >>> import torch
        >>> predictions = AnomalyMapGenerator()(torch.full((2, 1, 4, 4), 3.0), (32, 32))
        >>> predictions.anomaly_map.shape, predictions.pred_score
        (torch.Size([2, 1, 32, 32]), tensor([3., 3.]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.smooth = GaussianBlur2d(sigma=SMOOTHING)

    def forward(self, patch_scores: torch.Tensor, image_size: torch.Size | tuple[int, int]) -> InferenceBatch:
        """Compute map and score.

        Args:
            patch_scores (torch.Tensor): Anomaly scores -D of shape ``(B, 1, H_0, W_0)``, any range.
            image_size (torch.Size | tuple[int, int]): Height and width of the map in pixels, each at least 17.

        Returns:
            InferenceBatch: Anomaly map of shape ``(B, 1, H, W)`` and image score of shape ``(B,)``, unbounded; higher
            means more anomalous.
        """
        upsampled = functional.interpolate(patch_scores, image_size, mode="bilinear", align_corners=False)
        pred_score = patch_scores.amax(dim=(-2, -1)).squeeze(1)
        return InferenceBatch(pred_score=pred_score, anomaly_map=self.smooth(upsampled))
