# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Prompt features f_n and f_a: learnable prompts, fixed templates, or prototypes (paper, section 2.2 and Table S1)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from anomalib_mediclip.models.mediclip.text_encoder import Packing, TextEncoder

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
        if text_encoder.causal:
            tokens = tokens[:, : int(end_of_text.max()) + 1]
        with torch.no_grad():
            embeddings = text_encoder.token_embedding(tokens)
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.packing = Packing(end_of_text, tokens.shape[1], text_encoder.causal)

    @property
    def width(self) -> int:
        """Width C of the prompt features."""
        return self.text_encoder.width

    def prompts(self) -> torch.Tensor:
        """Return the word embeddings of all prompts, shape ``(P, L, W)``, the normal ones first."""
        return self.embeddings

    def forward(self) -> torch.Tensor:
        """Compute the prompt features.

        Returns:
            torch.Tensor: f_n and f_a as unit vectors, shape ``(2, C)``.
        """
        features = self.text_encoder(self.prompts(), self.packing)
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
        self.width = width
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
