# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Exact area under the per-region overlap curve (Bergmann et al., IJCV 2021), on raw scores.

anomalib's own metric counts pixels in float32, which ends at 16.7 million of them (334 images of 224 x 224).
"""

import cv2
import numpy as np
import torch

FPR_LIMIT = 0.3  # Bergmann et al.: beyond it a segmentation is of no use


def exact_aupro(anomaly_maps: torch.Tensor, gt_masks: torch.Tensor, fpr_limit: float = FPR_LIMIT) -> float:
    """Compute the exact AUPRO, every connected region of the ground truth counting the same.

    The overlap curve jumps by 1 / (size x number of regions) at the score of each anomalous pixel, where the share of
    normal pixels above is its false-positive rate; so the area is a mean over anomalous pixels and needs no thresholds.
    Tied scores are joined by a straight line, as in the trapezoidal rule.

    Args:
        anomaly_maps (torch.Tensor): Raw anomaly maps of any real range, shape ``(N, H, W)``.
        gt_masks (torch.Tensor): Ground truth of the same shape, true where anomalous.
        fpr_limit (float, optional): False-positive rate up to which the area is taken. Defaults to ``0.3``.

    Returns:
        float: Area divided by the limit, in [0, 1]; NaN when there is no region or no normal pixel.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> masks[0, 0, :2] = True
        >>> exact_aupro(masks.float(), masks)
        1.0
    """
    masks = gt_masks.bool()
    weights = _region_weights(masks)
    normal = anomaly_maps[~masks].sort().values
    if not len(weights) or not len(normal):
        return float("nan")
    scores = anomaly_maps[masks]
    above = 1 - torch.searchsorted(normal, scores, right=True).double() / len(normal)
    not_below = 1 - torch.searchsorted(normal, scores, right=False).double() / len(normal)
    # area right of a step at `above`, or of a ramp from there to `not_below`, up to the limit
    ramp = (not_below - above).clamp(min=1e-300)
    inside = (fpr_limit - above).clamp(min=0).minimum(ramp)
    area = inside**2 / (2 * ramp) + (fpr_limit - not_below).clamp(min=0)
    return float((weights * area).sum() / fpr_limit)


def _region_weights(masks: torch.Tensor) -> torch.Tensor:
    """Return the weight of every anomalous pixel, in the order of ``scores[masks]``; they add up to 1."""
    weights = []
    for mask in masks.cpu().numpy().astype(np.uint8):
        _, regions = cv2.connectedComponents(mask)
        weights.append(1 / np.bincount(regions.ravel())[regions[mask > 0]])
    pixels = torch.from_numpy(np.concatenate(weights)) if weights else torch.empty(0, dtype=torch.float64)
    return (pixels / pixels.sum()).to(masks.device)
