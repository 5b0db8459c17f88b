# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SimpleNet as a PyTorch module, in the order of the paper's section 3.

Images -> feature maps of a frozen backbone -> local features (mean of each 3x3 neighbourhood, all levels at the size of
the first) -> feature adaptor -> discriminator D. In training Gaussian noise turns adapted features into anomalous ones;
at inference -D is the anomaly score of a patch.

Paper: https://arxiv.org/abs/2303.15140
"""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional

from anomalib_mediclip.encoders.timm_encoder import TimmVisionEncoder
from anomalib_mediclip.models.simplenet.anomaly_map import AnomalyMapGenerator

NEIGHBOURHOOD = 3  # patches
HIDDEN_WIDTH = 1024  # of the discriminator; official code


class SimpleNetModel(nn.Module):
    """Frozen backbone, local features, feature adaptor, discriminator.

    Args:
        encoder (str, optional): Frozen backbone of timm. Defaults to ``"timm/wide_resnet50_2.tv_in1k"``.
        weights (str | None, optional): ``"pretrained"``, the path of a checkpoint, or ``None`` for random weights
            (tests). Defaults to ``"pretrained"``.
        layers (Sequence[int], optional): Stages whose features are used, 1-based, the stem of a ResNet being the
            first. Defaults to ``(3, 4)``: layer2 and layer3 of a ResNet.
        image_size (tuple[int, int], optional): Height and width of the input in pixels. Defaults to ``(224, 224)``.
        noise (float, optional): Standard deviation of the noise on adapted features, in the units of the backbone's
            features. Defaults to ``0.015``.
        seed (int, optional): Seed of the initial weights of adaptor and discriminator. Defaults to ``0``.

    Raises:
        ValueError: If the encoder, its weights or a layer does not exist, or the noise is not positive.
        RuntimeError: If the weights cannot be downloaded.

    Example:
        >>> import torch
        >>> model = SimpleNetModel("timm/resnet18", weights=None).eval()
        >>> predictions = model(torch.rand(1, 3, 224, 224))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([1, 1, 224, 224]), torch.Size([1]))
    """

    def __init__(
        self,
        encoder: str = "timm/wide_resnet50_2.tv_in1k",
        weights: str | None = "pretrained",
        layers: Sequence[int] = (3, 4),
        image_size: tuple[int, int] = (224, 224),
        noise: float = 0.015,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if noise <= 0:
            msg = f"noise={noise}: it must be positive (0.015 in the paper), or no feature is anomalous."
            raise ValueError(msg)
        self.noise = noise
        self.vision_encoder = TimmVisionEncoder(encoder, weights, list(layers), (image_size[0], image_size[1]))
        width = sum(self.vision_encoder.channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adaptor = FeatureAdaptor(width)
            self.discriminator = Discriminator(width)
        self.anomaly_map_generator = AnomalyMapGenerator()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | InferenceBatch:
        """Score the patches of images.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            tuple[torch.Tensor, torch.Tensor] | InferenceBatch: As :meth:`head`.
        """
        return self.head(self.vision_encoder(images), images.shape[-2:])

    def head(
        self,
        patch_features: list[torch.Tensor],
        image_size: torch.Size | tuple[int, int],
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor] | InferenceBatch:
        """Score patches from their features: all that is learnt.

        Args:
            patch_features (list[torch.Tensor]): Feature maps of shape ``(B, C_l, H_l, W_l)``, the largest first.
            image_size (torch.Size | tuple[int, int]): Height and width of the maps in pixels.
            generator (torch.Generator | None, optional): Source of the noise in training, on the CPU so that the noise
                is the same on every device. Defaults to ``None``: the global generator.

        Returns:
            tuple[torch.Tensor, torch.Tensor] | InferenceBatch: In training D of the normal and of the anomalous
            features, ``(B, 1, H_0, W_0)`` each; otherwise anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both
            the paper's unbounded scores (see :class:`AnomalyMapGenerator`).
        """
        adapted = self.adaptor(local_features(patch_features))
        if not self.training:
            return self.anomaly_map_generator(-self.discriminator(adapted), image_size)
        noise = self.noise * torch.randn(adapted.shape, generator=generator).to(adapted)
        # in one pass, as officially: the batch statistics are those of both kinds together
        normal, anomalous = self.discriminator(torch.cat([adapted, adapted + noise])).chunk(2)
        return normal, anomalous


def local_features(feature_maps: list[torch.Tensor]) -> torch.Tensor:
    """Average every 3x3 neighbourhood, bring all levels to the size of the first, and concatenate (paper, Eqs. 1-3).

    Args:
        feature_maps (list[torch.Tensor]): Feature maps of shape ``(B, C_l, H_l, W_l)``, the largest first.

    Returns:
        torch.Tensor: Local features of shape ``(B, sum of C_l, H_0, W_0)``: 1536 channels for layer2 and layer3 of a
        Wide ResNet 50.
    """
    size = feature_maps[0].shape[-2:]
    pooled = [functional.avg_pool2d(features, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2) for features in feature_maps]
    return torch.cat([functional.interpolate(features, size, mode="bilinear") for features in pooled], dim=1)


class FeatureAdaptor(nn.Conv2d):
    """One linear layer on every local feature, width unchanged, without bias (paper, section 3.2).

    Args:
        width (int): Width of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width, kernel_size=1, bias=False)
        nn.init.xavier_normal_(self.weight)


class Discriminator(nn.Sequential):
    """Two-layer perceptron D on every adapted feature: positive for normal ones, negative for anomalous ones.

    Args:
        width (int): Width of the features.
    """

    def __init__(self, width: int) -> None:
        hidden = nn.Conv2d(width, HIDDEN_WIDTH, kernel_size=1)
        output = nn.Conv2d(HIDDEN_WIDTH, 1, kernel_size=1, bias=False)
        for layer in (hidden, output):
            nn.init.xavier_normal_(layer.weight)
        super().__init__(hidden, nn.BatchNorm2d(HIDDEN_WIDTH), nn.LeakyReLU(0.2), output)
