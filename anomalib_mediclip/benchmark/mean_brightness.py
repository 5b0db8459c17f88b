# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Trivial baseline: the mean brightness of an image as its anomaly score.

A model that scores no higher than this may have learned nothing but brightness.
"""

from typing import Any

import torch
from anomalib.data import ImageBatch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.benchmark.raw_predictions import RawPredictions
from anomalib_mediclip.data import FewShotDataModule
from anomalib_mediclip.evaluation import exact_auroc

MAP_SIZE = [224, 224]  # pixels, as the models' maps


def brightness(datamodule: FewShotDataModule) -> RawPredictions:
    """Predict the test set by brightness alone.

    The score of an image is the mean of its pixels, and its anomaly map is their brightness. Both have the sign that
    gives the higher AUROC on the test set itself, because a reader wants to know how far a shortcut *can* get.

    Args:
        datamodule (FewShotDataModule): Data module, set up.

    Returns:
        RawPredictions: Predictions of the whole test set.
    """
    batches: list[Any] = [_predict(datamodule.test_data[index]) for index in range(len(datamodule.test_data))]
    scores = torch.cat([batch.pred_score for batch in batches])
    sign = 1 if exact_auroc(scores, torch.cat([batch.gt_label for batch in batches])) >= 0.5 else -1
    predictions = RawPredictions()
    for batch in batches:
        predictions.add(batch.update(pred_score=sign * batch.pred_score, anomaly_map=sign * batch.anomaly_map))
    return predictions


def _predict(item: Any) -> ImageBatch:
    """Return a batch of one small image."""
    image = resize(item.image[None], MAP_SIZE, antialias=True)
    mask = item.gt_mask
    return ImageBatch(
        image=image,
        image_path=[item.image_path],
        gt_label=item.gt_label[None],
        gt_mask=None if mask is None else resize(mask[None].float(), MAP_SIZE, InterpolationMode.NEAREST).bool(),
        pred_score=item.image.mean()[None],
        anomaly_map=image.mean(dim=1),
    )
