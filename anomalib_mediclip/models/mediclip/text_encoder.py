# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CLIP's frozen text encoder F, which computes no token that the prompt features do not depend on."""

from typing import Any

import torch
from torch import nn


class TextEncoder(nn.Module):
    """Frozen text tower F of an open_clip model, fed with word embeddings instead of words.

    Args:
        clip (Any): Frozen open_clip model with a native text tower.
        causal (bool): Whether tokens attend to earlier tokens only, as CLIP was trained. The official code of MediCLIP
            drops the mask.

    Raises:
        ValueError: If the model's text tower is not open_clip's own.
    """

    attention_mask: torch.Tensor | None
    token_embedding: nn.Embedding
    text_projection: torch.Tensor

    def __init__(self, clip: Any, causal: bool) -> None:
        super().__init__()
        tower = getattr(clip, "text", clip)
        pool_type = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
        if pool_type != "argmax" or getattr(tower, "attn_mask", None) is None or hasattr(tower, "cls_emb"):
            msg = (
                "This encoder's text tower is not CLIP's (causal, read at the end-of-text token). "
                "Use --model.prompt prototype with it, or another encoder."
            )
            raise ValueError(msg)
        self.causal = causal
        self.context_length: int = tower.context_length
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.text_projection = tower.text_projection
        self.register_buffer("attention_mask", tower.attn_mask if causal else None, persistent=False)

    def train(self, mode: bool = True) -> "TextEncoder":
        """Stay in evaluation mode, as every frozen part."""
        del mode
        return super().train(False)

    @property
    def tower(self) -> nn.Module:
        """Part that may compute in bfloat16; everything around it stays in float32."""
        return self.transformer

    @property
    def width(self) -> int:
        """Width C of the prompt features."""
        return self.text_projection.shape[1]

    def forward(self, embeddings: torch.Tensor, packing: "Packing") -> torch.Tensor:
        """Encode prompts.

        Args:
            embeddings (torch.Tensor): Word embeddings of shape ``(P, L, W)``.
            packing (Packing): Which of their tokens are computed, and how they see one another.

        Returns:
            torch.Tensor: Prompt features F(p) of shape ``(P, C)``, not normalised.
        """
        hidden = embeddings + self.positional_embedding[: embeddings.shape[1]]
        packed = hidden.flatten(0, 1)[packing.tokens].to(next(self.transformer.parameters()).dtype)
        hidden = self.transformer(packed, attn_mask=packing.mask(self.attention_mask))
        return self.ln_final(hidden.flatten(0, 1)[packing.ends].float()) @ self.text_projection


class Packing(nn.Module):
    """Tokens that must go through the text encoder so that the prompt features are exact.

    Under the causal mask no token sees a later one, so everything after the end-of-text token can be left out; what is
    left of all prompts goes through the encoder as one sequence, in which a token sees the earlier ones of its own
    prompt only. Without the mask every prompt is computed at the encoder's full length.

    Args:
        end_of_text (torch.Tensor): Position of the end-of-text token of each prompt, shape ``(P,)``.
        length (int): Number of tokens in a prompt before packing.
        causal (bool): Whether the text encoder runs under the causal mask.

    Attributes:
        tokens (torch.Tensor): Which of the ``P * length`` tokens are computed, shape ``(1, T)`` or ``(P, length)``.
        ends (torch.Tensor): Where the end-of-text tokens are among those computed, shape ``(P,)``.

    Example:
        >>> packing = Packing(torch.tensor([2, 1]), length=4, causal=True)
        >>> packing.tokens.tolist(), packing.ends.tolist()
        ([[0, 1, 2, 4, 5]], [2, 4])
    """

    tokens: torch.Tensor
    ends: torch.Tensor

    def __init__(self, end_of_text: torch.Tensor, length: int, causal: bool) -> None:
        super().__init__()
        self.length, self.causal = length, causal
        tokens = torch.arange(len(end_of_text) * length).view(-1, length)
        ends = tokens[:, 0] + end_of_text
        if causal:
            tokens = tokens[torch.arange(length) <= end_of_text[:, None]]
            tokens, ends = tokens[None], torch.searchsorted(tokens, ends)
        self.register_buffer("tokens", tokens, persistent=False)
        self.register_buffer("ends", ends, persistent=False)

    def mask(self, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
        """Return the mask that is added to the attention, so that packed prompts do not see one another.

        Args:
            attention_mask (torch.Tensor | None): The text encoder's own mask, for one prompt of full length.

        Returns:
            torch.Tensor | None: Mask of shape ``(T, T)``; the encoder's own without packing.
        """
        if attention_mask is None or not self.causal:
            return attention_mask
        prompt, position = self.tokens[0] // self.length, self.tokens[0] % self.length
        return attention_mask[position[:, None], position].masked_fill(prompt[:, None] != prompt, -torch.inf)
