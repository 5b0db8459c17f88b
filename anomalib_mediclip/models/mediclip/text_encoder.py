# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CLIP's frozen text encoder F, which computes no token that the prompt features do not depend on."""

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
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
        hidden = hidden.flatten(0, 1)[packing.tokens].to(next(self.transformer.parameters()).dtype)
        mask = packing.mask(self.attention_mask)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            hidden = block(hidden, attn_mask=mask)
        ends = _at_ends(last, hidden, packing.ends, mask)
        return self.ln_final(ends.float()) @ self.text_projection


def _at_ends(block: Any, hidden: torch.Tensor, ends: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Run the last block for the end-of-text tokens alone, which see the others.

    Args:
        block (Any): Block of open_clip's transformer.
        hidden (torch.Tensor): Tokens before the block, ``(1, T, W)`` or ``(P, L, W)``.
        ends (torch.Tensor): Positions of the end-of-text tokens among all of these, shape ``(P,)``.
        mask (torch.Tensor | None): Mask ``(T, T)`` that is added to the attention.

    Returns:
        torch.Tensor: End-of-text tokens after the block, shape ``(P, W)``.
    """
    known = type(block) is ResidualAttentionBlock and type(block.attn) is nn.MultiheadAttention
    one_mask_for_several = mask is not None and len(hidden) > 1  # but their end-of-text tokens are at several places
    if not known or not block.attn.batch_first or one_mask_for_several:
        return block(hidden, attn_mask=mask).flatten(0, 1)[ends]
    queries = hidden.flatten(0, 1)[ends].view(len(hidden), -1, hidden.shape[-1])
    seen = block.ln_1(hidden)
    mask = mask if mask is None else mask[ends]
    queries = queries + block.ls_1(block.attention(block.ln_1(queries), seen, seen, mask))
    return (queries + block.ls_2(block.mlp(block.ln_2(queries)))).flatten(0, 1)


class Packing(nn.Module):
    """Tokens that must go through the text encoder so that the prompt features are exact.

    Under the causal mask no token sees a later one. So everything after the end-of-text token can be left out, and the
    start-of-text token, which sees nothing but itself, is the same in all prompts and computed once. What is left of
    all prompts goes through the encoder as one sequence, in which a token sees the start and the earlier ones of its
    own prompt only. Without the mask every prompt is computed at the encoder's full length.

    Args:
        end_of_text (torch.Tensor): Position of the end-of-text token of each prompt, shape ``(P,)``, from 1.
        length (int): Number of tokens in a prompt before packing.
        causal (bool): Whether the text encoder runs under the causal mask.

    Attributes:
        tokens (torch.Tensor): Which of the ``P * length`` tokens are computed, shape ``(1, T)`` or ``(P, length)``.
        ends (torch.Tensor): Where the end-of-text tokens are among those computed, shape ``(P,)``.

    Example:
        >>> packing = Packing(torch.tensor([2, 1]), length=4, causal=True)
        >>> packing.tokens.tolist(), packing.ends.tolist()
        ([[0, 1, 2, 5]], [2, 3])
    """

    tokens: torch.Tensor
    ends: torch.Tensor

    def __init__(self, end_of_text: torch.Tensor, length: int, causal: bool) -> None:
        super().__init__()
        self.length, self.causal = length, causal
        tokens = torch.arange(len(end_of_text) * length).view(-1, length)
        ends = tokens[:, 0] + end_of_text
        if causal:
            computed = torch.arange(length) <= end_of_text[:, None]
            computed[1:, 0] = False
            tokens = tokens[computed]
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
        foreign = (prompt[:, None] != prompt) & (position != 0)
        return attention_mask[position[:, None], position].masked_fill(foreign, -torch.inf)
