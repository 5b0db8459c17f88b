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

    The paper's scores are unbounded. Here they are turned into probabilities at the very end by the logistic function,
    which is strictly increasing, so that calibration and pictures work as for the other models. Every metric that
    depends on the order of the scores only, such as AUROC, stays what it is as long as float32 tells the probabilities
    apart: near a positive score s two scores tie when they differ by less than about ``1.2e-7 * exp(s)`` (2e-5 at 5,
    3e-3 at 10), and above 17 all are 1; negative scores keep float32's precision. On the shipped sample scores reach
    6.5 and the image AUROC of probabilities equals that of scores.

    Example:
        >>> import torch
        >>> predictions = AnomalyMapGenerator()(torch.zeros(2, 1, 4, 4), (32, 32))
        >>> predictions.anomaly_map.shape, predictions.pred_score
        (torch.Size([2, 1, 32, 32]), tensor([0.5000, 0.5000]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.smooth = GaussianBlur2d(sigma=SMOOTHING)

    def forward(self, patch_scores: torch.Tensor, image_size: tuple[int, int]) -> InferenceBatch:
        """Compute map and score.

        Args:
            patch_scores (torch.Tensor): Anomaly scores -D of shape ``(B, 1, H_0, W_0)``, any range.
            image_size (tuple[int, int]): Height and width of the map in pixels, each at least 17.

        Returns:
            InferenceBatch: Anomaly map of shape ``(B, 1, H, W)`` and image score of shape ``(B,)``, probabilities.
        """
        upsampled = functional.interpolate(patch_scores, image_size, mode="bilinear", align_corners=False)
        pred_score = patch_scores.amax(dim=(-2, -1)).squeeze(1)
        return InferenceBatch(pred_score=pred_score.sigmoid(), anomaly_map=self.smooth(upsampled).sigmoid())
