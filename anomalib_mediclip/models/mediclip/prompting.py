# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Prompt features f_n and f_a: learnable prompts, fixed templates, or prototypes (paper, section 2.2 and Table S1)."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

PromptType = Literal["learnable", "handcrafted", "prototype"]

# Table S1 of the paper
NORMAL_TOKENS = (
    "normal",
    "healthy",
    "negative",
    "unremarkable",
    "clear",
    "asymptomatic",
    "normal findings",
    "no findings",
    "in good health",
    "no evidence of disease",
)
ABNORMAL_TOKENS = (
    "abnormal",
    "disease",
    "lesion",
    "positive",
    "symptomatic",
    "pathological",
    "impaired",
    "evidence of disease",
    "abnormal finding",
    "pathological condition",
    "pathological abnormality",
)
# Fixed templates in the manner of CLIP, for the ablation of the paper's Table 4
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a cropped photo of the {}.",
    "a close-up photo of a {}.",
    "a bright photo of the {}.",
    "a dark photo of the {}.",
    "a blurry photo of a {}.",
    "a good photo of the {}.",
)
PLACEHOLDER = "X"  # any single-token word: its embedding is replaced by the context
CONTEXT_STD = 0.02  # official code (and CoOp)

Tokenizer = Callable[[list[str]], torch.Tensor]


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
    def width(self) -> int:
        """Width C of the prompt features."""
        return self.text_projection.shape[1]

    def length(self, end_of_text: torch.Tensor) -> int:
        """Return how many positions must be computed so that the features are exact.

        Under the causal mask no token sees a later one, so everything after the longest prompt can be left out.

        Args:
            end_of_text (torch.Tensor): Position of the end-of-text token of each prompt, shape ``(P,)``.

        Returns:
            int: Number of positions.
        """
        return int(end_of_text.max()) + 1 if self.causal else self.context_length

    def forward(self, embeddings: torch.Tensor, end_of_text: torch.Tensor) -> torch.Tensor:
        """Encode prompts.

        Args:
            embeddings (torch.Tensor): Word embeddings of shape ``(P, L, W)``.
            end_of_text (torch.Tensor): Position of the end-of-text token of each prompt, shape ``(P,)``.

        Returns:
            torch.Tensor: Prompt features F(p) of shape ``(P, C)``, not normalised.
        """
        length = embeddings.shape[1]
        mask = None if self.attention_mask is None else self.attention_mask[:length, :length]
        hidden = self.transformer(embeddings + self.positional_embedding[:length], attn_mask=mask)
        pooled = self.ln_final(hidden[torch.arange(len(hidden), device=hidden.device), end_of_text])
        return pooled @ self.text_projection


class TextPrompts(nn.Module):
    """Prompts that go through the text encoder; f_n and f_a are the means over their prompts.

    Args:
        text_encoder (TextEncoder): Frozen text encoder.
        tokenizer (Callable): Maps a list of texts to token numbers of shape ``(P, 77)``.
        normal (list[str]): Texts of the normal prompts.
        abnormal (list[str]): Texts of the anomalous prompts.

    Raises:
        ValueError: If there is no prompt of a kind, or one is longer than the text encoder can read.
    """

    embeddings: torch.Tensor
    end_of_text: torch.Tensor

    def __init__(
        self,
        text_encoder: TextEncoder,
        tokenizer: Tokenizer,
        normal: list[str],
        abnormal: list[str],
    ) -> None:
        super().__init__()
        if not normal or not abnormal:
            msg = "normal_tokens and abnormal_tokens each need at least one entry, such as 'healthy' and 'lesion'."
            raise ValueError(msg)
        self.text_encoder = text_encoder
        self.num_normal = len(normal)
        tokens = tokenizer([*normal, *abnormal])
        end_of_text = tokens.argmax(dim=-1)  # CLIP's end-of-text token has the highest number
        _refuse_truncated(tokenizer, [*normal, *abnormal], end_of_text, tokens.shape[1])
        tokens = tokens[:, : text_encoder.length(end_of_text)]
        with torch.no_grad():
            embeddings = text_encoder.token_embedding(tokens)
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.register_buffer("end_of_text", end_of_text, persistent=False)

    def prompts(self) -> torch.Tensor:
        """Return the word embeddings of all prompts, shape ``(P, L, W)``, the normal ones first."""
        return self.embeddings

    def forward(self) -> torch.Tensor:
        """Compute the prompt features.

        Returns:
            torch.Tensor: f_n and f_a as unit vectors, shape ``(2, C)``.
        """
        features = self.text_encoder(self.prompts(), self.end_of_text)
        normal, abnormal = features[: self.num_normal].mean(dim=0), features[self.num_normal :].mean(dim=0)
        return functional.normalize(torch.stack([normal, abnormal]), dim=-1)


class LearnablePrompts(TextPrompts):
    """Prompts [V_1]...[V_M][CLS] of Eq. 1, the context [V] learnt for every class token separately.

    Args:
        text_encoder (TextEncoder): Frozen text encoder.
        tokenizer (Callable): Maps a list of texts to token numbers of shape ``(P, 77)``.
        normal_tokens (Sequence[str]): Class tokens of the normal prompts.
        abnormal_tokens (Sequence[str]): Class tokens of the anomalous prompts.
        context_length (int): Number M of learnable words in a prompt.

    Raises:
        ValueError: If M is less than 1, or a prompt does not fit.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        tokenizer: Tokenizer,
        normal_tokens: Sequence[str],
        abnormal_tokens: Sequence[str],
        context_length: int,
    ) -> None:
        if context_length < 1:
            msg = f"context_length={context_length}: use at least one learnable word (8 in the paper)."
            raise ValueError(msg)
        context = " ".join([PLACEHOLDER] * context_length)
        normal, abnormal = ([f"{context} {token}." for token in tokens] for tokens in (normal_tokens, abnormal_tokens))
        super().__init__(text_encoder, tokenizer, normal, abnormal)
        width = self.embeddings.shape[-1]
        self.context = nn.Parameter(CONTEXT_STD * torch.randn(len(self.embeddings), context_length, width))

    def prompts(self) -> torch.Tensor:
        """Put the context between the start-of-text token and the class words; see :meth:`TextPrompts.prompts`."""
        start, words = self.embeddings[:, :1], self.embeddings[:, 1 + self.context.shape[1] :]
        return torch.cat([start, self.context, words], dim=1)


class HandcraftedPrompts(TextPrompts):
    """Every class token in every one of :data:`TEMPLATES`; nothing is learnt (ablation of the paper's Table 4).

    Args:
        text_encoder (TextEncoder): Frozen text encoder.
        tokenizer (Callable): Maps a list of texts to token numbers of shape ``(P, 77)``.
        normal_tokens (Sequence[str]): Class tokens of the normal prompts.
        abnormal_tokens (Sequence[str]): Class tokens of the anomalous prompts.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        tokenizer: Tokenizer,
        normal_tokens: Sequence[str],
        abnormal_tokens: Sequence[str],
    ) -> None:
        normal, abnormal = (
            [template.format(token) for token in tokens for template in TEMPLATES]
            for tokens in (normal_tokens, abnormal_tokens)
        )
        super().__init__(text_encoder, tokenizer, normal, abnormal)


class Prototypes(nn.Module):
    """Two learnable vectors in place of prompts, for encoders without a text tower.

    Args:
        width (int): Width C of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(2, width))

    def forward(self) -> torch.Tensor:
        """Return f_n and f_a as unit vectors, shape ``(2, C)``."""
        return functional.normalize(self.vectors, dim=-1)


def _refuse_truncated(tokenizer: Tokenizer, texts: list[str], end_of_text: torch.Tensor, length: int) -> None:
    """Refuse prompts that the tokenizer had to cut: their class token would be lost without a word."""
    for text, position in zip(texts, end_of_text.tolist(), strict=True):
        if position == length - 1 and tokenizer([f"{text} {PLACEHOLDER}"]).argmax().item() == position:
            msg = (
                f"The prompt {text!r} is longer than the {length} tokens the text encoder reads. "
                "Shorten the class token, or use fewer context tokens."
            )
            raise ValueError(msg)
