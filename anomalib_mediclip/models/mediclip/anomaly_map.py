# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Probability maps S_n and S_a from adapted patch features and prompt features (paper, Eq. 2)."""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

Aggregation = Literal["probability", "similarity"]

TINY = 1e-12  # length below which a feature has no direction, as in torch's normalize


class AnomalyMapGenerator(nn.Module):
    """Compare every patch with f_n and f_a, and aggregate the tapped blocks at the size of the image.

    Args:
        temperature (float, optional): Temperature tau of the softmax. Defaults to ``0.07`` (paper); the official code
            has none, that is ``1.0``.
        aggregation (str, optional): ``"probability"``: softmax per block, upsample, average (paper).
            ``"similarity"``: average the cosine similarities, upsample, softmax (official code).
            Defaults to ``"probability"``.

    Raises:
        ValueError: If the temperature is not positive or the aggregation unknown.

    Example:
        >>> import torch
        >>> features = torch.randn(2, 8, 4, 4)
        >>> prompts = torch.nn.functional.normalize(torch.randn(2, 8), dim=1)
        >>> AnomalyMapGenerator()([features], prompts, (32, 32)).shape
        torch.Size([2, 2, 32, 32])
    """

    def __init__(self, temperature: float = 0.07, aggregation: Aggregation = "probability") -> None:
        super().__init__()
        if temperature <= 0:
            msg = f"temperature={temperature}: it must be positive (0.07 in the paper, 1.0 in the official code)."
            raise ValueError(msg)
        if aggregation not in ("probability", "similarity"):
            msg = f"aggregation={aggregation!r}: use 'probability' (paper) or 'similarity' (official code)."
            raise ValueError(msg)
        self.temperature = temperature
        self.aggregation = aggregation

    def forward(
        self,
        adapted: list[torch.Tensor],
        prompt_features: torch.Tensor,
        image_size: torch.Size | tuple[int, int],
    ) -> torch.Tensor:
        """Compute the maps.

        Args:
            adapted (list[torch.Tensor]): Adapted features g_j of shape ``(B, C, H_j, W_j)``, one tensor for each block.
            prompt_features (torch.Tensor): Unit vectors f_n and f_a, shape ``(2, C)``.
            image_size (torch.Size | tuple[int, int]): Height and width of the maps in pixels.

        Returns:
            torch.Tensor: S_n and S_a of shape ``(B, 2, H, W)``, probabilities in [0, 1] that add up to 1.
        """
        # the softmax of two numbers is the sigmoid of their difference: one map a block instead of two
        direction = (prompt_features[1:] - prompt_features[:1]) / self.temperature
        contrasts = [_contrast(features, direction) for features in adapted]
        if self.aggregation == "similarity":
            abnormal = _average(contrasts, image_size).sigmoid()
        else:
            abnormal = _average([contrast.sigmoid() for contrast in contrasts], image_size)
        return torch.cat([1 - abnormal, abnormal], dim=1)


def _contrast(features: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Compare features ``(B, C, H_j, W_j)`` with a direction ``(1, C)`` as unit vectors; returns ``(B, 1, H_j, W_j)``.

    The product is linear, so the length is divided out of it, one number a patch, and not out of every feature. It is
    fastest where the channels of a patch lie side by side (``torch.channels_last``). A product of matrices would take
    as long, but would round a patch differently in another batch.
    """
    length = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=TINY)
    return (features * direction[:, :, None, None]).sum(dim=1, keepdim=True) / length


def _average(maps: list[torch.Tensor], image_size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Upsample maps ``(B, 1, H_j, W_j)`` to the image and average them."""
    return sum((upsample(m, image_size) for m in maps[1:]), start=upsample(maps[0], image_size)) / len(maps)


def upsample(maps: torch.Tensor, image_size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Interpolate bilinearly, corners aligned as in the official code.

    It is written as two matrix products because the backward pass of ``interpolate`` takes many times as long.

    Args:
        maps (torch.Tensor): Maps of shape ``(B, 1, H_j, W_j)``.
        image_size (torch.Size | tuple[int, int]): Height and width of the result.

    Returns:
        torch.Tensor: Maps of shape ``(B, 1, H, W)``.
    """
    rows, columns = (
        functional.interpolate(
            torch.eye(length, device=maps.device, dtype=maps.dtype)[None], side, mode="linear", align_corners=True
        )[0]
        for length, side in zip(maps.shape[-2:], image_size, strict=True)
    )
    return rows.T @ maps @ columns
