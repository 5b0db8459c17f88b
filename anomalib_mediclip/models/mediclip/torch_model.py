# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP as a PyTorch module, in the order of the paper's section 2.

Images X -> patch features G_j(X) of the frozen vision encoder -> adapters g_j = phi_j(G_j(X)) -> cosine similarity with
the prompt features f_n and f_a -> softmax and aggregation -> S_n, S_a. The anomaly map is S_a, the image score its
maximum.

Paper: https://arxiv.org/abs/2405.11315
"""

import contextlib

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.func import functional_call

from anomalib_mediclip.encoders.vision_encoder import VisionEncoder
from anomalib_mediclip.models.mediclip.anomaly_map import AnomalyMapGenerator
from anomalib_mediclip.models.mediclip.prompting import Prototypes, TextPrompts


class MediCLIPModel(nn.Module):
    """Frozen vision encoder, prompts, one adapter for each tapped block, anomaly maps.

    :func:`~anomalib_mediclip.models.mediclip.builder.build_mediclip` makes the parts from the options of the paper.

    Args:
        vision_encoder (VisionEncoder): Frozen encoder G_j.
        prompts (TextPrompts | Prototypes): Prompts; called without arguments they return f_n and f_a ``(2, C)``.
        adapters (nn.ModuleList): Adapters phi_j from ``(B, C_j, H_j, W_j)`` to ``(B, C, H_j, W_j)``.
        anomaly_map_generator (AnomalyMapGenerator): Comparison of adapted features with f_n and f_a (Eq. 2).

    Example:
        >>> import torch
        >>> from anomalib_mediclip.models.mediclip.builder import build_mediclip
        >>> model = build_mediclip("timm/resnet18", weights=None, layers=[2, 3], prompt="prototype").eval()
        >>> predictions = model(torch.rand(1, 3, 224, 224))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([1, 1, 224, 224]), torch.Size([1]))
    """

    prompt_features: torch.Tensor

    def __init__(
        self,
        vision_encoder: VisionEncoder,
        prompts: TextPrompts | Prototypes,
        adapters: nn.ModuleList,
        anomaly_map_generator: AnomalyMapGenerator,
    ) -> None:
        super().__init__()
        self.vision_encoder = vision_encoder
        self.prompts: nn.Module = prompts
        self.adapters = adapters
        self.anomaly_map_generator = anomaly_map_generator
        self.register_buffer("prompt_features", torch.zeros(2, prompts.width))

    def forward(self, images: torch.Tensor) -> torch.Tensor | InferenceBatch:
        """Compute the anomaly maps of images.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``, of the model's image size.

        Returns:
            torch.Tensor | InferenceBatch: As :meth:`head`.
        """
        return self.head(self.vision_encoder(images), images.shape[-2:])

    def head(
        self, patch_features: list[torch.Tensor], image_size: torch.Size | tuple[int, int]
    ) -> torch.Tensor | InferenceBatch:
        """Compute the anomaly maps from patch features: all that is learnt, and all that a training step runs.

        Args:
            patch_features (list[torch.Tensor]): Patch features of shape ``(B, C_j, H_j, W_j)``, one tensor for each
                tapped block.
            image_size (torch.Size | tuple[int, int]): Height and width of the maps in pixels.

        Returns:
            torch.Tensor | InferenceBatch: In training S_n and S_a of shape ``(B, 2, H, W)``; otherwise the anomaly map
            S_a of shape ``(B, 1, H, W)`` and the image score max(S_a) of shape ``(B,)``, both probabilities.
        """
        prompt_features = self.prompts() if self.training else self.prompt_features
        with _full_precision(patch_features[0].device.type):
            adapted = [adapter(features) for adapter, features in zip(self.adapters, patch_features, strict=True)]
            probabilities = self.anomaly_map_generator(adapted, prompt_features.float(), image_size)
        if self.training:
            return probabilities
        anomaly_map = probabilities[:, 1:]
        return InferenceBatch(pred_score=anomaly_map.amax(dim=(-2, -1)).squeeze(1), anomaly_map=anomaly_map)

    def train(self, mode: bool = True) -> "MediCLIPModel":
        """Switch between training and inference; at the switch to inference f_n and f_a are computed once and kept."""
        if self.training and not mode:
            self.keep_prompt_features()
        return super().train(mode)

    def keep_prompt_features(self) -> None:
        """Compute f_n and f_a from the prompts as they are, for inference."""
        self.prompt_features.copy_(self.prompt_features_of({}))

    @torch.no_grad()
    def prompt_features_of(self, prompts: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute f_n and f_a of other prompts.

        Args:
            prompts (dict[str, torch.Tensor]): State of ``prompts``; what it leaves out is as it is.

        Returns:
            torch.Tensor: Unit vectors, shape ``(2, C)``.
        """
        training = self.prompts.training
        self.prompts.train()  # in evaluation torch's transformers take another path, which rounds in another way
        features: torch.Tensor = functional_call(self.prompts, prompts, ())
        self.prompts.train(training)
        return features


def _full_precision(device: str) -> contextlib.AbstractContextManager[None]:
    """Leave mixed precision: in bfloat16 the similarities take some twenty values only, and the scores tie."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
