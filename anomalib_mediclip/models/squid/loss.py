# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Losses of generator and discriminator (official code, settings of CheXpert)."""

import torch
from torch.nn import functional

from anomalib_mediclip.models.squid.torch_model import Generated

STUDENT, TEACHER, DISTILLATION, ADVERSARIAL = 10.0, 0.01, 0.001, 0.005  # weights


def generator_loss(images: torch.Tensor, generated: Generated, realness: torch.Tensor) -> torch.Tensor:
    """Compute the loss of the generator: reconstruct, agree with the teacher at each level, and look real.

    The adversarial term is -log D, as in the official code; the paper writes log(1 - D), which has no gradient where
    the discriminator is certain.

    Args:
        images (torch.Tensor): Grey images ``(B, 1, H, W)`` in [0, 1].
        generated (Generated): What the generator made of them.
        realness (torch.Tensor): The discriminator's logits ``(B,)`` of the student's images.

    Returns:
        torch.Tensor: Scalar, 0 or more.
    """
    pairs = zip(generated.student_levels, generated.teacher_levels, strict=True)
    distillation = sum((functional.mse_loss(*pair) for pair in pairs), torch.zeros((), device=images.device))
    return (
        STUDENT * functional.mse_loss(generated.student, images)
        + TEACHER * functional.mse_loss(generated.teacher, images)
        + DISTILLATION * distillation
        + ADVERSARIAL * functional.softplus(-realness).mean()
    )


def discriminator_loss(real: torch.Tensor, reconstructed: torch.Tensor) -> torch.Tensor:
    """Compute the loss of the discriminator: tell images from reconstructions, by binary cross-entropy.

    Args:
        real (torch.Tensor): Logits ``(B,)`` of images.
        reconstructed (torch.Tensor): Logits ``(B,)`` of their reconstructions.

    Returns:
        torch.Tensor: Scalar, 0 or more.
    """
    return ADVERSARIAL * (functional.softplus(-real).mean() + functional.softplus(reconstructed).mean())
