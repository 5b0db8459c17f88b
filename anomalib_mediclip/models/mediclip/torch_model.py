# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP as a PyTorch module, in the order of the paper's section 2.

Images X -> patch features G_j(X) of the frozen vision encoder -> adapters g_j = phi_j(G_j(X)) -> cosine similarity with
the prompt features f_n and f_a -> softmax and aggregation -> S_n, S_a. The anomaly map is S_a, the image score its
maximum.

With a memory bank, which the paper does not have, the anomaly map is the sum of two z-scores: that of the logit of S_a,
and that of the distance to the support set. The image score is then the mean of the highest pixels.

Paper: https://arxiv.org/abs/2405.11315
"""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.func import functional_call

from anomalib_mediclip.encoders.vision_encoder import VisionEncoder
from anomalib_mediclip.models.components.precision import full_precision
from anomalib_mediclip.models.mediclip.anomaly_map import AnomalyMapGenerator, upsample
from anomalib_mediclip.models.mediclip.memory_bank import MemoryBank, moments_of
from anomalib_mediclip.models.mediclip.prompting import Prototypes, TextPrompts

LEAST_PROBABILITY = 1e-6  # below which a logit counts as that of this


class MediCLIPModel(nn.Module):
    """Frozen vision encoder, prompts, one adapter for each tapped block, anomaly maps.

    :func:`~anomalib_mediclip.models.mediclip.builder.build_mediclip` makes the parts from the options of the paper.

    Args:
        vision_encoder (VisionEncoder): Frozen encoder G_j.
        prompts (TextPrompts | Prototypes): Prompts; called without arguments they return f_n and f_a ``(2, C)``.
        adapters (nn.ModuleList): Adapters phi_j from ``(B, C_j, H_j, W_j)`` to ``(B, C, H_j, W_j)``.
        anomaly_map_generator (AnomalyMapGenerator): Comparison of adapted features with f_n and f_a (Eq. 2).
        memory_bank (MemoryBank | None, optional): Memory bank to join to the learnt map. Defaults to ``None``.
        top_fraction (float, optional): Share of the pixels, in [0, 1], whose highest values are averaged to the image
            score; 0 for the maximum. Defaults to ``0.0``.

    Attributes:
        prompt_features (torch.Tensor): f_n and f_a for inference, shape ``(2, C)``.
        map_moments (torch.Tensor): With a memory bank, mean and standard deviation of the logit of S_a over all pixels
            of the support set, shape ``(2,)``.

    Example:
        >>> import torch
        >>> from anomalib_mediclip.models.mediclip.builder import build_mediclip
        >>> model = build_mediclip("timm/resnet18", weights=None, layers=[2, 3], prompt="prototype").eval()
        >>> predictions = model(torch.rand(1, 3, 224, 224))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([1, 1, 224, 224]), torch.Size([1]))
    """

    prompt_features: torch.Tensor
    map_moments: torch.Tensor

    def __init__(
        self,
        vision_encoder: VisionEncoder,
        prompts: TextPrompts | Prototypes,
        adapters: nn.ModuleList,
        anomaly_map_generator: AnomalyMapGenerator,
        memory_bank: MemoryBank | None = None,
        top_fraction: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= top_fraction <= 1:
            msg = f"top_fraction={top_fraction}: give a share of the pixels in [0, 1] (0 for the maximum of the map)."
            raise ValueError(msg)
        self.vision_encoder = vision_encoder
        self.prompts: nn.Module = prompts
        self.adapters = adapters
        self.anomaly_map_generator = anomaly_map_generator
        self.memory_bank = memory_bank
        self.top_fraction = top_fraction
        self.register_buffer("prompt_features", torch.zeros(2, prompts.width))
        if memory_bank is not None:
            self.register_buffer("map_moments", torch.tensor([0.0, 1.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor | InferenceBatch:
        """Compute the anomaly maps of images.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``, of the model's image size.

        Returns:
            torch.Tensor | InferenceBatch: As :meth:`head`.
        """
        return self.head(self.vision_encoder(images), images.shape[-2:])

    def head(
        self,
        patch_features: list[torch.Tensor],
        image_size: torch.Size | tuple[int, int],
        names: Sequence[str] | None = None,
    ) -> torch.Tensor | InferenceBatch:
        """Compute the anomaly maps from patch features: all that is learnt, and all that a training step runs.

        Args:
            patch_features (list[torch.Tensor]): Patch features of shape ``(B, C_j, H_j, W_j)``, one tensor for each
                tapped block.
            image_size (torch.Size | tuple[int, int]): Height and width of the maps in pixels.
            names (Sequence[str] | None, optional): Names of support images, painted or not; see
                :meth:`MemoryBank.forward`. Defaults to ``None``: they are other images.

        Returns:
            torch.Tensor | InferenceBatch: In training S_n and S_a of shape ``(B, 2, H, W)``; otherwise the anomaly map
            S_a of shape ``(B, 1, H, W)`` and the image score max(S_a) of shape ``(B,)``, both probabilities; with a
            memory bank, sums of z-scores in place of both.
        """
        prompt_features = self.prompts() if self.training else self.prompt_features
        with full_precision(patch_features[0].device.type):
            adapted = [adapter(features) for adapter, features in zip(self.adapters, patch_features, strict=True)]
            probabilities = self.anomaly_map_generator(adapted, prompt_features.float(), image_size)
            if self.training:
                return probabilities
            anomaly_map = probabilities[:, 1:]
            if self.memory_bank is not None:
                learnt = (_logit(anomaly_map) - self.map_moments[0]) / self.map_moments[1]
                anomaly_map = learnt + upsample(self.memory_bank(patch_features, image_size, names), image_size)
        return InferenceBatch(pred_score=image_score(anomaly_map, self.top_fraction), anomaly_map=anomaly_map)

    def train(self, mode: bool = True) -> "MediCLIPModel":
        """Switch between training and inference; at the switch to inference f_n and f_a are computed once and kept."""
        if self.training and not mode:
            self.keep_prompt_features()
        return super().train(mode)

    def keep_prompt_features(self) -> None:
        """Compute f_n and f_a from the prompts as they are, for inference."""
        self.prompt_features.copy_(self.prompt_features_of({}))

    @torch.no_grad()
    def prompt_features_of(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute f_n and f_a of other weights.

        Args:
            weights (dict[str, torch.Tensor]): State of such a model; what it leaves out is as it is.

        Returns:
            torch.Tensor: Unit vectors, shape ``(2, C)``.
        """
        training = self.prompts.training
        self.prompts.train()  # in evaluation torch's transformers take another path, which rounds in another way
        features: torch.Tensor = functional_call(self.prompts, _part("prompts.", weights), ())
        self.prompts.train(training)
        return features

    @torch.no_grad()
    def map_moments_of(
        self,
        weights: dict[str, torch.Tensor],
        support: list[list[torch.Tensor]],
        image_size: torch.Size | tuple[int, int],
    ) -> torch.Tensor:
        """Compute what ``map_moments`` are for other weights.

        Args:
            weights (dict[str, torch.Tensor]): State of such a model; what it leaves out is as it is.
            support (list[list[torch.Tensor]]): Patch features of the support set, some images at a time.
            image_size (torch.Size | tuple[int, int]): Height and width of the maps in pixels.

        Returns:
            torch.Tensor: Mean and standard deviation, shape ``(2,)``.
        """
        prompt_features = self.prompt_features_of(weights)
        maps = []
        for patch_features in support:
            adapted = [
                functional_call(adapter, _part(f"adapters.{index}.", weights), (features,))
                for index, (adapter, features) in enumerate(zip(self.adapters, patch_features, strict=True))
            ]
            maps.append(self.anomaly_map_generator(adapted, prompt_features.float(), image_size)[:, 1:])
        return moments_of(_logit(torch.cat(maps)))


def image_score(anomaly_map: torch.Tensor, top_fraction: float) -> torch.Tensor:
    """Return the mean of the highest pixels of each map.

    Args:
        anomaly_map (torch.Tensor): Maps of shape ``(B, 1, H, W)``.
        top_fraction (float): Share of the pixels in [0, 1]; 0 for the maximum.

    Returns:
        torch.Tensor: Scores of shape ``(B,)``.

    Example:
        >>> image_score(torch.arange(10.0).view(1, 1, 2, 5), 0.2), image_score(torch.arange(10.0).view(1, 1, 2, 5), 0)
        (tensor([8.5000]), tensor([9.]))
    """
    number = round(top_fraction * anomaly_map.shape[-2] * anomaly_map.shape[-1])
    if number <= 1:
        return anomaly_map.amax(dim=(1, 2, 3))
    return anomaly_map.flatten(1).topk(number, dim=1, sorted=False).values.mean(dim=1)


def _part(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the state of a part of a model."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _logit(probability: torch.Tensor) -> torch.Tensor:
    """Return the logit, which is where evidence adds up."""
    return probability.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY).logit()
