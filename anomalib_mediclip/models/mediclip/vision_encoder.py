# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CLIP's vision encoder G_j and the linear adapters on its patch features (paper, section 2.3)."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from anomalib_mediclip.models.pretrained import check_layers
from anomalib_mediclip.models.vision_encoder import VisionEncoder


class ClipVisionEncoder(VisionEncoder):
    """Vision tower of an open_clip model (ViT or ResNet): outputs of the residual stream, class token dropped.

    No final normalisation and no projection are applied, as in the official code; the blocks after the last tapped
    one are removed.

    Args:
        clip (Any): Frozen open_clip model with a native vision tower.
        layers (list[int]): Tapped blocks, 1-based (for a ResNet its four stages).

    Raises:
        ValueError: If a block does not exist, or the vision tower is of a kind that has no blocks to tap.
    """

    def __init__(self, clip: Any, layers: list[int]) -> None:
        tower = clip.visual
        super().__init__(tuple(tower.preprocess_cfg["mean"]), tuple(tower.preprocess_cfg["std"]))
        name = type(tower).__name__
        if name == "VisionTransformer":
            check_layers(name, layers, tower.transformer.layers)
            self.indices = [layer - 1 for layer in layers]
            tower.transformer.prune_intermediate_layers(self.indices)
            self.channels = [tower.transformer.width] * len(layers)
        elif name == "ModifiedResNet":
            check_layers(name, layers, 4)
            self.indices = list(layers)  # open_clip counts the stem as block 0
            self.channels = [tower.layer1[-1].bn3.num_features * 2 ** (layer - 1) for layer in layers]
        else:
            msg = f"Vision towers of type {name} are not supported. Use an open_clip ViT or ResNet, or 'timm/<model>'."
            raise ValueError(msg)
        self.tower = tower

    def extract(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run the blocks up to the last tapped one; see :meth:`VisionEncoder.extract`."""
        output = self.tower.forward_intermediates(
            images,
            indices=self.indices,
            stop_early=True,
            intermediates_only=True,
            output_fmt="NCHW",
        )
        return output["image_intermediates"]


class VisualAdapter(nn.Conv2d):
    """Linear adapter phi_j: one linear layer on every patch feature, to the width C of the prompt features.

    No activation and no residual; the result has unit length, because Eq. 2 compares it by cosine similarity.

    Args:
        in_channels (int): Width of the patch features.
        out_channels (int): Width C of the prompt features.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map patch features to unit vectors comparable with prompt features.

        Args:
            features (torch.Tensor): Patch features of shape ``(B, C_j, H_j, W_j)``.

        Returns:
            torch.Tensor: Adapted features g_j of shape ``(B, C, H_j, W_j)``, of length 1 along ``C``.
        """
        return functional.normalize(super().forward(features), dim=1)


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
        return functional.normalize(functional.conv2d(features, self.pooling), dim=1)
