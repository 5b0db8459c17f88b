# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""How many normal images a threshold will call anomalous, estimated from the few that it was found on."""

import math

import torch
from scipy.stats import t as students_t


def expected_false_alarms(evidence: torch.Tensor, cut: float) -> float:
    """Estimate the share of new normal images that score above a cut.

    Counting the images at hand promises too little: the cut was put between these very images, and a few images do not
    show how far others scatter. This is the probability that one more draw from a normal distribution exceeds the cut,
    given n draws with mean m and standard deviation s: that of Student's t with n - 1 degrees of freedom above
    (cut - m) / (s sqrt(1 + 1 / n)).

    Args:
        evidence (torch.Tensor): Scores of n normal images, shape ``(n,)``, on a scale without bounds.
        cut (float): Cut on the same scale.

    Returns:
        float: Share in [0, 1]; NaN if there are no two different scores.

    Example:
        >>> expected_false_alarms(torch.tensor([1.0, 2.0, 3.0]), cut=2.0)
        0.5
        >>> round(expected_false_alarms(torch.tensor([1.0, 2.0, 3.0]), cut=4.0), 3)
        0.113
    """
    number = len(evidence)
    if number < 2 or not evidence.isfinite().all() or evidence.min() == evidence.max():
        return math.nan
    evidence = evidence.double().cpu()
    spread = evidence.std().item() * math.sqrt(1 + 1 / number)
    return float(students_t.sf((cut - evidence.mean().item()) / spread, number - 1))
