# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Truncated L1 loss on the scores of the discriminator (paper, section 3.5)."""

import torch
from torch import nn

MARGIN = 0.5  # th+ and -th- of the paper


class SimpleNetLoss(nn.Module):
    """Loss = max(0, th+ - D(normal)) + max(0, D(anomalous) - th-), averaged over patches; th+ = 0.5, th- = -0.5.

    Example:
        >>> import torch
        >>> SimpleNetLoss()(torch.tensor([0.25, 2.0]), torch.tensor([-0.25, -2.0]))
        tensor(0.2500)
    """

    def forward(self, normal: torch.Tensor, anomalous: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch.

        Args:
            normal (torch.Tensor): Discriminator's output D for normal features, any shape and range.
            anomalous (torch.Tensor): Its output for the same features with noise, same shape.

        Returns:
            torch.Tensor: Scalar, 0 or more; 0 when all outputs lie beyond the margins.
        """
        return ((MARGIN - normal).clamp(min=0) + (MARGIN + anomalous).clamp(min=0)).mean()
