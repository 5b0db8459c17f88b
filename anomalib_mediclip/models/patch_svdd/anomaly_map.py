# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""From scores of overlapping patches to a map of the image and a score (paper, section 3.4)."""

from typing import Literal

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional

Combination = Literal["product", "sum", "large", "small"]


class AnomalyMapGenerator(nn.Module):
    """Spread the scores of both patch sizes over the image, and combine the maps; the image score is the maximum.

    A pixel of a corner lies in one patch, and one of the inside in many, so single extreme scores survive at the
    border, which the maximum favours. Nothing is smoothed.

    Args:
        combine (Combination): ``"product"`` (paper) or ``"sum"`` of both maps, or the map of ``"large"`` or ``"small"``
            patches alone.

    Raises:
        ValueError: If there is no such combination.
    """

    def __init__(self, combine: Combination) -> None:
        super().__init__()
        if combine not in ("product", "sum", "large", "small"):
            msg = f"combine={combine!r}: use one of product, sum, large, small."
            raise ValueError(msg)
        self.combine = combine

    def forward(self, large: torch.Tensor, small: torch.Tensor) -> InferenceBatch:
        """Compute map and score.

        Args:
            large (torch.Tensor): Map ``(B, 1, H, W)`` of the patches of 64 pixels, from :func:`spread`.
            small (torch.Tensor): The same of those of 32 pixels.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both 0 or more.
        """
        maps = {"product": large * small, "sum": large + small, "large": large, "small": small}
        anomaly_map = maps[self.combine]
        return InferenceBatch(pred_score=anomaly_map.amax(dim=(1, 2, 3)), anomaly_map=anomaly_map)


def spread(scores: torch.Tensor, side: int, stride: int) -> torch.Tensor:
    """Give each pixel the mean score of the patches that cover it.

    Args:
        scores (torch.Tensor): Scores of patches ``(B, 1, h, w)``.
        side (int): Side of the patches in pixels.
        stride (int): Distance of neighbouring patches in pixels.

    Returns:
        torch.Tensor: Map ``(B, 1, (h - 1) stride + side, (w - 1) stride + side)``.

    Example:
        >>> spread(torch.tensor([[[[1.0, 3.0]]]]), side=2, stride=1)
        tensor([[[[1., 2., 3.],
                  [1., 2., 3.]]]])
    """
    patch = torch.ones(1, 1, side, side, dtype=scores.dtype, device=scores.device)
    covered = functional.conv_transpose2d(torch.ones_like(scores[:1]), patch, stride=stride)
    return functional.conv_transpose2d(scores, patch, stride=stride) / covered
