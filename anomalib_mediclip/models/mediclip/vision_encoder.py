# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen vision encoder G_j and the linear adapters on its patch features (paper, section 2.3)."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from anomalib_mediclip.models.pretrained import check_layers, create_timm


class VisionEncoder(nn.Module):
    """Frozen encoder that returns the patch features of some of its blocks.

    Normalisation with the encoder's own mean and standard deviation is part of the encoder, so that images are RGB in
    [0, 1] everywhere else: the synthesis needs them so, and an exported model takes them so.

    Args:
        mean (tuple[float, float, float]): Mean of the images the encoder was trained on, per channel.
        std (tuple[float, float, float]): Standard deviation of these, per channel.
    """

    mean: torch.Tensor
    std: torch.Tensor
    tower: Any  # modules of open_clip and timm, whose attributes are not typed
    channels: list[int]

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Stay in evaluation mode: a frozen encoder must not update its batch statistics."""
        del mode
        return super().train(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Extract the patch features G_j(X) of the tapped blocks.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            list[torch.Tensor]: Patch features of shape ``(B, C_j, H_j, W_j)``, one tensor for each tapped block.
        """
        return self.extract((images - self.mean) / self.std)

    def extract(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run the encoder on normalised images.

        Args:
            images (torch.Tensor): Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            list[torch.Tensor]: As :meth:`forward`.
        """
        raise NotImplementedError


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


class TimmVisionEncoder(VisionEncoder):
    """Backbone from timm: feature maps of some of its stages, at their own strides.

    Args:
        encoder (str): ``"timm/<model>"``.
        weights (str | None): ``"pretrained"``, the path of a checkpoint, or ``None`` for random weights.
        layers (list[int]): Tapped stages, 1-based.
        image_size (tuple[int, int]): Height and width of the input in pixels.

    Raises:
        ValueError: If the backbone does not take images of this size, or does not return feature maps.
    """

    def __init__(self, encoder: str, weights: str | None, layers: list[int], image_size: tuple[int, int]) -> None:
        tower = create_timm(encoder, weights, layers)
        super().__init__(tower.default_cfg["mean"], tower.default_cfg["std"])
        self.channels = tower.feature_info.channels()
        self.tower = tower.to(memory_format=torch.channels_last)  # a third faster on a CPU; convolutions follow it
        self._check(encoder, image_size)

    def _check(self, encoder: str, image_size: tuple[int, int]) -> None:
        """Run the backbone once: some take one size only, some put the channels last."""
        try:
            with torch.no_grad():
                widths = [feature.shape[1] for feature in self.tower(torch.zeros(1, 3, *image_size))]
        except (AssertionError, RuntimeError) as error:
            msg = f"{encoder!r} does not take images of size {tuple(image_size)} ({error}). Change --model.image_size."
            raise ValueError(msg) from error
        if widths != list(self.channels):
            msg = f"{encoder!r} does not return feature maps (B, C, H, W). Use a convolutional backbone of timm."
            raise ValueError(msg)

    def extract(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run the backbone; see :meth:`VisionEncoder.extract`."""
        return self.tower(images)


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
