# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Linear adapters phi_j on the patch features of the frozen encoder (paper, section 2.3)."""

import torch
from torch import nn
from torch.nn import functional


class VisualAdapter(nn.Conv2d):
    """Linear adapter phi_j: one linear layer on every patch feature, to the width C of the prompt features.

    No activation and no residual. The result has any length: Eq. 2 compares it by cosine similarity.

    Args:
        in_channels (int): Width of the patch features.
        out_channels (int): Width C of the prompt features.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map patch features to the space of the prompt features.

        Args:
            features (torch.Tensor): Patch features of shape ``(B, C_j, H_j, W_j)``.

        Returns:
            torch.Tensor: Adapted features g_j of shape ``(B, C, H_j, W_j)``.
        """
        return super().forward(features)


class ChannelPooling(nn.Module):
    """What stands in for the adapter in the ablation of the paper's Table 4: average pooling along the channels.

    Args:
        in_channels (int): Width of the patch features.
        out_channels (int): Width C of the prompt features.
    """

    pooling: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # adaptive pooling is linear: as a matrix it can be exported whatever the two widths are
        pooling = functional.adaptive_avg_pool1d(torch.eye(in_channels)[:, None], out_channels)[:, 0].T
        self.register_buffer("pooling", pooling[:, :, None, None].contiguous(), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Pool patch features to the width of the prompt features; see :meth:`VisualAdapter.forward`."""
        return functional.conv2d(features, self.pooling)
