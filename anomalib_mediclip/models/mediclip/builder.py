# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Parts of MediCLIP from the options of the paper: encoder, prompts and adapters that go together."""

from collections.abc import Sequence
from typing import Any, Literal

import open_clip
import torch
from torch import nn

from anomalib_mediclip.encoders.clip_encoder import ClipVisionEncoder
from anomalib_mediclip.encoders.timm_encoder import TimmVisionEncoder
from anomalib_mediclip.encoders.vision_encoder import VisionEncoder
from anomalib_mediclip.encoders.weights import TIMM_PREFIX, create_clip
from anomalib_mediclip.models.mediclip.adapter import ChannelPooling, VisualAdapter
from anomalib_mediclip.models.mediclip.anomaly_map import Aggregation, AnomalyMapGenerator
from anomalib_mediclip.models.mediclip.memory_bank import MemoryBank
from anomalib_mediclip.models.mediclip.prompting import (
    ABNORMAL_TOKENS,
    NORMAL_TOKENS,
    HandcraftedPrompts,
    LearnablePrompts,
    PromptType,
    Prototypes,
    TextPrompts,
)
from anomalib_mediclip.models.mediclip.text_encoder import TextEncoder
from anomalib_mediclip.models.mediclip.torch_model import MediCLIPModel

AdapterType = Literal["linear", "none"]

PROTOTYPE_WIDTH = 256  # width C where no text tower sets it


def build_mediclip(
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
    memory_bank: bool = False,
    top_fraction: float = 0.0,
    seed: int = 0,
) -> MediCLIPModel:
    """Build the model; the options are those of :class:`~anomalib_mediclip.MediCLIP`, where they are explained.

    Returns:
        MediCLIPModel: Model in training mode, with the initial weights of the seed.

    Raises:
        ValueError: If the encoder, its weights, a layer or an option does not exist, or they do not go together.
        RuntimeError: If the weights cannot be downloaded.
    """
    anomaly_map_generator = AnomalyMapGenerator(temperature, aggregation)
    adapter_type = _adapter_type(adapter)
    height, width = image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision_encoder: VisionEncoder
        prompts: TextPrompts | Prototypes
        if encoder.startswith(TIMM_PREFIX):
            vision_encoder = TimmVisionEncoder(encoder, weights, list(layers), (height, width))
            prompts = _prompts_without_text(encoder, prompt)
        else:
            clip = create_clip(encoder, weights, (height, width))
            vision_encoder = ClipVisionEncoder(clip, list(layers))
            if prompt == "prototype":
                prompts = Prototypes(clip.visual.output_dim)
            else:
                text_encoder, tokenizer = TextEncoder(clip, causal_text), open_clip.get_tokenizer(encoder)
                prompts = _text_prompts(prompt, text_encoder, tokenizer, normal_tokens, abnormal_tokens, context_length)
        adapters = nn.ModuleList(adapter_type(channels, prompts.width) for channels in vision_encoder.channels)
    bank = MemoryBank() if memory_bank else None
    return MediCLIPModel(vision_encoder, prompts, adapters, anomaly_map_generator, bank, top_fraction)


def _adapter_type(adapter: str) -> type[nn.Module]:
    """Return the class of an adapter by its option."""
    types: dict[str, type[nn.Module]] = {"linear": VisualAdapter, "none": ChannelPooling}
    if adapter not in types:
        msg = f"adapter={adapter!r}: use 'linear', or 'none' for the ablation without adapters."
        raise ValueError(msg)
    return types[adapter]


def _prompts_without_text(encoder: str, prompt: str) -> Prototypes:
    """Return prototypes, the only kind of prompt that needs no text tower."""
    if prompt != "prototype":
        msg = (
            f"{encoder!r} has no text tower for prompt={prompt!r}. Use --model.prompt prototype with it, "
            "or configs/model/mediclip_lite.yaml."
        )
        raise ValueError(msg)
    return Prototypes(PROTOTYPE_WIDTH)


def _text_prompts(
    prompt: str,
    text_encoder: TextEncoder,
    tokenizer: Any,
    normal_tokens: Sequence[str],
    abnormal_tokens: Sequence[str],
    context_length: int,
) -> TextPrompts:
    """Return prompts that go through the text encoder."""
    if prompt == "learnable":
        return LearnablePrompts(text_encoder, tokenizer, normal_tokens, abnormal_tokens, context_length)
    if prompt == "handcrafted":
        return HandcraftedPrompts(text_encoder, tokenizer, normal_tokens, abnormal_tokens)
    msg = f"prompt={prompt!r}: use 'learnable', 'handcrafted' or 'prototype'."
    raise ValueError(msg)
