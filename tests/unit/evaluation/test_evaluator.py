# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images that count for each metric."""

import torch
from anomalib.data import ImageBatch

from anomalib_mediclip.evaluation import MedicalEvaluator


def evaluated(batch: ImageBatch) -> dict[str, float | None]:
    evaluator = MedicalEvaluator()
    evaluator.on_test_batch_end(None, None, None, batch, 0)
    values = {metric.name: metric.compute() for metric in evaluator.test_metrics}
    return {name: None if value is None else value.item() for name, value in values.items()}


def test_anomalous_images_without_outline_count_for_the_image_metrics_only() -> None:
    maps = torch.zeros(3, 4, 4)
    maps[1, :2], maps[2, 2:] = 0.9, 0.7
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[1, :2] = True
    batch = ImageBatch(
        image=torch.rand(3, 3, 4, 4),
        anomaly_map=maps,
        pred_score=maps.amax(dim=(1, 2)),
        pred_label=maps.amax(dim=(1, 2)) > 0.5,
        pred_mask=maps > 0.5,
        gt_label=torch.tensor([0, 1, 1]),
        gt_mask=masks,
    )
    values = evaluated(batch)
    assert values["image_AUROC"] == 1.0
    assert values["image_F1Score"] == 1.0
    assert values["pixel_AUROC"] == 1.0
    assert values["pixel_F1Score"] == 1.0


def test_sets_without_masks_have_no_pixel_metrics() -> None:
    batch = ImageBatch(
        image=torch.rand(2, 3, 4, 4),
        anomaly_map=torch.rand(2, 4, 4),
        pred_score=torch.tensor([0.1, 0.9]),
        pred_label=torch.tensor([False, True]),
        pred_mask=torch.zeros(2, 4, 4),
        gt_label=torch.tensor([0, 1]),
    )
    values = evaluated(batch)
    assert values["image_AUROC"] == 1.0
    assert values["pixel_AUROC"] is None
    assert values["pixel_F1Score"] is None
