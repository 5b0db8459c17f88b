# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Loss of Patch SVDD (paper, Eq. 4): tell directions, and keep close patches close."""

import torch
from torch import nn
from torch.nn import functional


class PatchSVDDLoss(nn.Module):
    """Cross-entropy of directions plus a weight times the mean distance of close pairs, summed over both patch sizes.

    Args:
        svdd_weight (float): Weight lambda of the distances. A large one makes all embeddings equal.

    Example:
        >>> import torch
        >>> loss = PatchSVDDLoss(svdd_weight=0.5)
        >>> loss(torch.zeros(2, 8), torch.tensor([0, 7]), torch.zeros(2, 3), torch.tensor([[3.0, 4, 0], [0, 0, 0]]))
        tensor(3.3294)
    """

    def __init__(self, svdd_weight: float) -> None:
        super().__init__()
        self.svdd_weight = svdd_weight

    def forward(
        self, logits: torch.Tensor, directions: torch.Tensor, first: torch.Tensor, second: torch.Tensor
    ) -> torch.Tensor:
        """Compute the loss of one patch size.

        Args:
            logits (torch.Tensor): Logits of directions ``(N, 8)``.
            directions (torch.Tensor): Directions ``(N,)``, int64.
            first (torch.Tensor): Embeddings of the first patches of close pairs ``(M, D)``.
            second (torch.Tensor): Embeddings of the second patches ``(M, D)``.

        Returns:
            torch.Tensor: Scalar, 0 or more.
        """
        distances = torch.linalg.vector_norm(first - second, dim=1)  # not squared, as in the official code
        return functional.cross_entropy(logits, directions) + self.svdd_weight * distances.mean()
