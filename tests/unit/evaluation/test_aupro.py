# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Exact area under the per-region overlap curve, against definitions and other implementations."""

import math

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPRO
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.evaluation import exact_aupro


def masks_with_regions() -> torch.Tensor:
    """Three images: two regions of unequal size, one region, none."""
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[0, 2:4, 2:4] = True
    masks[0, 10:26, 10:26] = True
    masks[1, 0:8, 20:32] = True
    return masks


def maps_for(masks: torch.Tensor, signal: float = 1.0) -> torch.Tensor:
    return torch.randn(masks.shape, generator=torch.Generator().manual_seed(0)) + signal * masks


def test_equals_a_weighted_roc_curve_cut_at_the_limit() -> None:
    masks = masks_with_regions()
    maps = maps_for(masks)
    weights = torch.ones(masks.shape, dtype=torch.float64)
    weights[0, 2:4, 2:4] = 1 / 4
    weights[0, 10:26, 10:26] = 1 / 256
    weights[1, 0:8, 20:32] = 1 / 96
    arguments = {"y_true": masks.flatten(), "y_score": maps.flatten(), "sample_weight": weights.flatten()}
    assert exact_aupro(maps, masks, fpr_limit=1.0) == pytest.approx(roc_auc_score(**arguments), abs=1e-12)
    # scikit-learn standardises a partial area so that chance is 0.5 (McClish, 1989)
    standardised, chance = roc_auc_score(**arguments, max_fpr=0.3), 0.3**2 / 2
    area = chance + (2 * standardised - 1) * (0.3 - chance)
    assert exact_aupro(maps, masks) == pytest.approx(area / 0.3, abs=1e-12)


def test_equals_anomalibs_metric_where_float32_can_count() -> None:
    masks = masks_with_regions()
    maps = maps_for(masks).sigmoid()
    metric = AUPRO(fields=["anomaly_map", "gt_mask"])
    metric.update(ImageBatch(image=torch.zeros(3, 3, 32, 32), anomaly_map=maps, gt_mask=masks))
    assert exact_aupro(maps, masks) == pytest.approx(metric.compute().item(), abs=1e-4)


def test_perfect_map_is_1_constant_map_is_chance_and_inverse_map_is_0() -> None:
    masks = masks_with_regions()
    assert exact_aupro(masks.float(), masks) == pytest.approx(1, abs=1e-12)
    assert exact_aupro(-masks.float(), masks) == 0
    # all tied: a straight line, whose area up to the limit L is L^2 / 2
    assert exact_aupro(torch.zeros(masks.shape), masks) == pytest.approx(0.3 / 2)


def test_every_region_counts_the_same_whatever_its_size() -> None:
    masks = masks_with_regions()
    only_small = torch.zeros(masks.shape)
    only_small[0, 2:4, 2:4] = 1
    only_large = torch.zeros(masks.shape)
    only_large[0, 10:26, 10:26] = 1
    assert exact_aupro(only_small, masks) == pytest.approx(exact_aupro(only_large, masks))


def test_depends_on_the_order_of_scores_only() -> None:
    masks = masks_with_regions()
    maps = maps_for(masks)
    assert exact_aupro(maps, masks) == exact_aupro(1000 + 8 * maps, masks)


@pytest.mark.parametrize("value", [False, True])
def test_is_undefined_for_a_single_kind_of_pixels(value: bool) -> None:
    assert math.isnan(exact_aupro(torch.rand(1, 4, 4), torch.full((1, 4, 4), value)))
