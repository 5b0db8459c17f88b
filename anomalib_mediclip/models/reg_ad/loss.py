# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Registration loss: that of SimSiam at every position (paper, section 3.2)."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Registration(NamedTuple):
    """What the loss compares, ``(B, C, h, w)`` each.

    Attributes:
        query (torch.Tensor): z_q = E(F) of the query.
        predicted_query (torch.Tensor): p_q = P(z_q).
        support (torch.Tensor): z_s = E(F) of its supports, F averaged over them.
        predicted_support (torch.Tensor): p_s = P(z_s).
    """

    query: torch.Tensor
    predicted_query: torch.Tensor
    support: torch.Tensor
    predicted_support: torch.Tensor


class RegistrationLoss(nn.Module):
    """Loss = (D(p_q, z_s) + D(p_s, z_q)) / 2, D = minus the cosine over channels; no gradient through z.

    Example:
        >>> same = torch.ones(1, 2, 3, 3)
        >>> RegistrationLoss()(Registration(same, same, same, same))
        tensor(-1.0000)
    """

    def forward(self, found: Registration) -> torch.Tensor:
        """Compute the loss of a batch.

        Args:
            found (Registration): Queries and supports.

        Returns:
            torch.Tensor: Scalar between -1 and 1, the mean over positions and queries.
        """
        of_query = functional.cosine_similarity(found.predicted_query, found.support.detach(), dim=1)
        of_support = functional.cosine_similarity(found.predicted_support, found.query.detach(), dim=1)
        return -(of_query.mean() + of_support.mean()) / 2
