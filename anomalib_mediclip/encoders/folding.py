# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen convolutional encoders with fewer passes over memory, on which they spend most of their time.

Batch normalisation with fixed statistics is linear, so it goes into the weights of the convolution before it.
TensorFlow's "same" padding, one pixel more behind than before, costs a copy of the feature map; a kernel with a leading
row and column of zeros reads the same pixels under a padding that convolutions do for nothing.
"""

import copy
from itertools import pairwise
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-4  # of the largest feature; rounding stays below a tenth of it


class FoldedNorm(nn.Module):
    """What remains of a batch normalisation once it is part of a convolution: its activation, if it has one.

    Args:
        norm (nn.BatchNorm2d): Batch normalisation, which may be one of timm's with an activation.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.activation: nn.Module = getattr(norm, "act", nn.Identity())
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Apply the activation to features of any shape."""
        activated: torch.Tensor = self.activation(features)
        return activated


class HalvingConv2d(nn.Conv2d):
    """Convolution of stride 2 with TensorFlow's padding, for feature maps of any size.

    Args:
        conv (Conv2dSame): timm's convolution, of stride 2 and with an odd, square kernel.
    """

    def __init__(self, conv: Conv2dSame) -> None:
        side = conv.kernel_size[0]
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            side + 1,
            2,
            (side - 1) // 2,
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        self.weight = nn.Parameter(functional.pad(conv.weight.detach(), (1, 0, 1, 0)), requires_grad=False)
        self.bias = conv.bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Halve feature maps ``(B, C, H, W)``; along an odd side the padding is even, and the zeros are left out."""
        weight = self.weight[..., features.shape[-2] % 2 :, features.shape[-1] % 2 :]
        return functional.conv2d(features, weight, self.bias, self.stride, self.padding, groups=self.groups)


def fold(tower: Any, images: torch.Tensor) -> Any:
    """Make a frozen backbone faster without changing what it computes by more than rounding.

    Args:
        tower (Any): Backbone in evaluation mode that returns a list of feature maps. It is not modified.
        images (torch.Tensor): Images ``(B, 3, H, W)`` on which the result is checked.

    Returns:
        Any: The faster backbone, or the one given if the modules of its blocks do not follow each other as listed.
    """
    folded = copy.deepcopy(tower)
    for parent in folded.modules():
        _fold_norms(parent)
        _widen_kernels(parent)
    with torch.no_grad():
        expected, found = tower(images), folded(images)
    same = all(_agree(a, b) for a, b in zip(expected, found, strict=True))
    return folded.to(memory_format=torch.channels_last) if same else tower


def _fold_norms(parent: nn.Module) -> None:
    """Fold each batch normalisation listed right after a convolution into it."""
    for (conv_name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(parent, norm_name, FoldedNorm(norm))


def _widen_kernels(parent: nn.Module) -> None:
    """Replace each convolution that pads by copying, where it halves the feature map."""
    for name, conv in list(parent.named_children()):
        if isinstance(conv, Conv2dSame) and _halves(conv):
            setattr(parent, name, HalvingConv2d(conv))


def _halves(conv: Conv2dSame) -> bool:
    """Tell whether a convolution has stride 2, no dilation and an odd, square kernel."""
    height, width = conv.kernel_size
    return conv.stride == (2, 2) and conv.dilation == (1, 1) and height == width and height % 2 == 1


def _agree(expected: torch.Tensor, found: torch.Tensor) -> bool:
    return expected.shape == found.shape and bool((expected - found).abs().max() <= TOLERANCE * expected.abs().max())
