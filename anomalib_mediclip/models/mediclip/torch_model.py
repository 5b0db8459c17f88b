# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP as a PyTorch module, in the order of the paper's section 2.

Images X -> patch features G_j(X) of the frozen vision encoder -> adapters g_j = phi_j(G_j(X)) -> cosine similarity with
the prompt features f_n and f_a -> softmax and aggregation -> S_n, S_a. The anomaly map is S_a, the image score its
maximum.

Paper: https://arxiv.org/abs/2405.11315
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import open_clip
import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_mediclip.encoders.clip_encoder import ClipVisionEncoder
from anomalib_mediclip.encoders.timm_encoder import TimmVisionEncoder
from anomalib_mediclip.encoders.weights import TIMM_PREFIX, create_clip, weights_hash
from anomalib_mediclip.models.mediclip.adapter import ChannelPooling, VisualAdapter
from anomalib_mediclip.models.mediclip.anomaly_map import Aggregation, AnomalyMapGenerator
from anomalib_mediclip.models.mediclip.prompting import (
    ABNORMAL_TOKENS,
    NORMAL_TOKENS,
    HandcraftedPrompts,
    LearnablePrompts,
    PromptType,
    Prototypes,
)
from anomalib_mediclip.models.mediclip.text_encoder import TextEncoder

AdapterType = Literal["linear", "none"]

PROTOTYPE_WIDTH = 256  # width C where no text tower sets it


class MediCLIPModel(nn.Module):
    """Frozen encoder, learnable prompts, linear adapters, anomaly maps.

    Args:
        encoder (str, optional): Frozen encoder: an open_clip name, ``hf-hub:<repository>``, ``local-dir:<folder>`` or
            ``timm/<model>``. Defaults to ``"ViT-L-14-quickgelu"`` (paper).
        weights (str | None, optional): Its weights: a tag of open_clip, ``"pretrained"`` for timm, a path, or ``None``
            for random weights (tests). Defaults to ``"openai"``.
        layers (Sequence[int], optional): Tapped blocks, 1-based. Defaults to ``(12, 18, 24)``.
        image_size (tuple[int, int], optional): Height and width of the input in pixels. Defaults to ``(224, 224)``.
        prompt (str, optional): ``"learnable"``, ``"handcrafted"`` or ``"prototype"``. Defaults to ``"learnable"``.
        context_length (int, optional): Number M of learnable words in a prompt. Defaults to ``8``.
        normal_tokens (Sequence[str], optional): Class tokens of the normal prompts. Defaults to Table S1.
        abnormal_tokens (Sequence[str], optional): Class tokens of the anomalous prompts. Defaults to Table S1.
        causal_text (bool, optional): Whether the text encoder runs under CLIP's causal mask. Defaults to ``True``; the
            official code drops the mask.
        adapter (str, optional): ``"linear"``, or ``"none"`` for channel pooling. Defaults to ``"linear"``.
        temperature (float, optional): Temperature tau of Eq. 2. Defaults to ``0.07``.
        aggregation (str, optional): What is averaged over the blocks, ``"probability"`` or ``"similarity"``; see
            :class:`AnomalyMapGenerator`. Defaults to ``"probability"``.
        seed (int, optional): Seed of the initial values of what is learnt. Defaults to ``0``.

    Raises:
        ValueError: If the encoder, its weights, a layer or an option does not exist, or they do not go together.
        RuntimeError: If the weights cannot be downloaded.

    Example:
        >>> import torch
        >>> model = MediCLIPModel("timm/resnet18", weights=None, layers=[2, 3], prompt="prototype").eval()
        >>> predictions = model(torch.rand(1, 3, 224, 224))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([1, 1, 224, 224]), torch.Size([1]))
    """

    # modules whose weights are never learnt, and so never saved
    FROZEN = ("vision_encoder.", "prompts.text_encoder.")

    prompt_features: torch.Tensor

    def __init__(
        self,
        encoder: str = "ViT-L-14-quickgelu",
        weights: str | None = "openai",
        layers: Sequence[int] = (12, 18, 24),
        image_size: tuple[int, int] = (224, 224),
        prompt: PromptType = "learnable",
        context_length: int = 8,
        normal_tokens: Sequence[str] = NORMAL_TOKENS,
        abnormal_tokens: Sequence[str] = ABNORMAL_TOKENS,
        causal_text: bool = True,
        adapter: AdapterType = "linear",
        temperature: float = 0.07,
        aggregation: Aggregation = "probability",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.anomaly_map_generator = AnomalyMapGenerator(temperature, aggregation)
        self.vision_encoder: ClipVisionEncoder | TimmVisionEncoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if encoder.startswith(TIMM_PREFIX):
                width = PROTOTYPE_WIDTH
                self.vision_encoder = TimmVisionEncoder(encoder, weights, list(layers), (image_size[0], image_size[1]))
                self.prompts = _prompts_without_text(encoder, prompt, width)
            else:
                clip = create_clip(encoder, weights, (image_size[0], image_size[1]))
                self.vision_encoder = ClipVisionEncoder(clip, list(layers))
                self.prompts, width = _prompts_of(
                    clip, encoder, prompt, context_length, normal_tokens, abnormal_tokens, causal_text
                )
            self.adapters = nn.ModuleList(
                _adapter_type(adapter)(channels, width) for channels in self.vision_encoder.channels
            )
        self.register_buffer("prompt_features", torch.zeros(2, width))
        self.encoder_hash = self._hash_encoder()  # of the weights as published, whatever becomes of them here
        self.vision_encoder.prepare()

    def forward(
        self, images: torch.Tensor, patch_features: list[torch.Tensor] | None = None
    ) -> torch.Tensor | InferenceBatch:
        """Compute the anomaly maps of a batch.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``, of the model's image size.
            patch_features (list[torch.Tensor] | None, optional): Their patch features, if they are known.
                Defaults to ``None``.

        Returns:
            torch.Tensor | InferenceBatch: In training S_n and S_a of shape ``(B, 2, H, W)``; otherwise the anomaly map
            S_a of shape ``(B, 1, H, W)`` and the image score max(S_a) of shape ``(B,)``, both probabilities.
        """
        patch_features = patch_features or self.vision_encoder(images)
        prompt_features = self.prompts() if self.training else self.prompt_features
        with _full_precision(images.device.type):
            adapted = [adapter(features) for adapter, features in zip(self.adapters, patch_features, strict=True)]
            probabilities = self.anomaly_map_generator(adapted, prompt_features.float(), images.shape[-2:])
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
        """Compute f_n and f_a from the prompts as they are, for inference and checkpoints."""
        with torch.no_grad():
            self.prompt_features.copy_(self.prompts())

    @contextlib.contextmanager
    def without_prompts(self) -> Iterator[None]:
        """Leave out prompts and text encoder for the time of a ``with`` block: inference needs f_n and f_a only.

        Yields:
            None: Nothing.
        """
        self.eval()
        prompts, self.prompts = self.prompts, nn.Identity()
        try:
            yield
        finally:
            self.prompts = prompts

    @property
    def frozen_towers(self) -> list[nn.Module]:
        """Modules that may compute in bfloat16; everything around them stays in float32."""
        text_encoder = getattr(self.prompts, "text_encoder", None)
        return [self.vision_encoder.tower, *([text_encoder.transformer] if text_encoder else [])]

    def _hash_encoder(self) -> str:
        """Hash the weights of the frozen encoders; see :func:`anomalib_mediclip.encoders.weights.weights_hash`."""
        text_encoder = getattr(self.prompts, "text_encoder", None)
        return weights_hash(nn.ModuleList([self.vision_encoder, *([text_encoder] if text_encoder else [])]))


def _full_precision(device: str) -> contextlib.AbstractContextManager[None]:
    """Leave mixed precision: in bfloat16 the similarities take some twenty values only, and the scores tie."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def _adapter_type(adapter: str) -> type[nn.Module]:
    """Return the class of an adapter by its option."""
    types: dict[str, type[nn.Module]] = {"linear": VisualAdapter, "none": ChannelPooling}
    if adapter not in types:
        msg = f"adapter={adapter!r}: use 'linear', or 'none' for the ablation without adapters."
        raise ValueError(msg)
    return types[adapter]


def _prompts_without_text(encoder: str, prompt: str, width: int) -> nn.Module:
    """Return prototypes, the only kind of prompt that needs no text tower."""
    if prompt != "prototype":
        msg = (
            f"{encoder!r} has no text tower for prompt={prompt!r}. Use --model.prompt prototype with it, "
            "or configs/model/mediclip_lite.yaml."
        )
        raise ValueError(msg)
    return Prototypes(width)


def _prompts_of(
    clip: Any,
    encoder: str,
    prompt: str,
    context_length: int,
    normal_tokens: Sequence[str],
    abnormal_tokens: Sequence[str],
    causal_text: bool,
) -> tuple[nn.Module, int]:
    """Return the prompts that go with a CLIP model, and the width C of their features."""
    if prompt == "prototype":
        return Prototypes(clip.visual.output_dim), clip.visual.output_dim
    text_encoder = TextEncoder(clip, causal_text)
    tokenizer = open_clip.get_tokenizer(encoder)
    if prompt == "learnable":
        learnable = LearnablePrompts(text_encoder, tokenizer, normal_tokens, abnormal_tokens, context_length)
        return learnable, text_encoder.width
    if prompt == "handcrafted":
        return HandcraftedPrompts(text_encoder, tokenizer, normal_tokens, abnormal_tokens), text_encoder.width
    msg = f"prompt={prompt!r}: use 'learnable', 'handcrafted' or 'prototype'."
    raise ValueError(msg)
