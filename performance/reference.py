# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP computed as the authors' code computes it: what the speed of ours is measured against.

Written from a description of that code: everything in float32, the text encoder run over 77 positions for every batch,
in inference too, and attention asked for its weights, which nobody reads.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_mediclip.models.mediclip import MediCLIPModel
from anomalib_mediclip.models.mediclip.builder import build_mediclip

LARGE = {"encoder": "ViT-L-14-quickgelu", "weights": None}


class ReferenceModel(MediCLIPModel):
    """The same mathematics, as the official configuration has it, at the official cost.

    Args:
        **options (Any): Arguments of :func:`build_mediclip`.
    """

    def __init__(self, **options: Any) -> None:
        parts = build_mediclip(causal_text=False, temperature=1.0, aggregation="similarity", **options)
        super().__init__(parts.vision_encoder, parts.prompts, parts.adapters, parts.anomaly_map_generator)
        for tower in frozen_towers(self):
            for block in getattr(tower, "transformer", tower).resblocks:
                block.attn = AttentionWithWeights(block.attn)

    def forward(self, images: torch.Tensor) -> torch.Tensor | InferenceBatch:
        """Compute the maps, and in inference the prompt features once more."""
        if not self.training:
            self.keep_prompt_features()
        return super().forward(images)


def frozen_towers(model: MediCLIPModel) -> list[nn.Module]:
    """Return the parts of CLIP that may compute in bfloat16."""
    return [model.vision_encoder.tower, model.prompts.text_encoder.tower]


class AttentionWithWeights(nn.Module):
    """Attention that computes its weights whether they are wanted or not.

    Args:
        attention (nn.MultiheadAttention): What is wrapped.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, *inputs: torch.Tensor, need_weights: bool, **options: Any) -> tuple[torch.Tensor, Any]:
        """Call the attention; see :class:`torch.nn.MultiheadAttention`."""
        del need_weights
        return self.attention(*inputs, need_weights=True, **options)


def alternate(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run variants in turn, so that a busy machine slows all of them down alike.

    Args:
        variants (Mapping[str, Callable[[], float]]): What to time; each returns the seconds it took.
        rounds (int): How often; one more round before that is not counted.

    Returns:
        dict[str, float]: Median of the seconds of each variant.
    """
    runs = [{name: variant() for name, variant in variants.items()} for _ in range(rounds + 1)]
    return {name: statistics.median(run[name] for run in runs[1:]) for name in variants}


def seconds_of(function: Callable[[], Any]) -> float:
    """Return the wall-clock seconds that a call takes, work queued on a GPU included."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def describe_machine() -> str:
    """Return threads, version of torch and what the CPU can do."""
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
