# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Predictions of an export, their differences from the checkpoint, and their duration."""

import statistics
import time
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.parity.formats import Predict
from anomalib_mediclip.parity.images import ComparedImages

BATCH_SIZE = 8
SECONDS = 0.5  # a call is timed again and again for this long


@dataclass(frozen=True)
class Predictions:
    """Predictions of N images.

    Args:
        maps (np.ndarray): Anomaly maps of the images at the model's input size, ``(N, 1, H, W)``.
        scores (np.ndarray): Image scores at the model's input size, ``(N,)``.
        labels (np.ndarray): Predicted labels at the model's input size, bool of shape ``(N,)``.
        original_scores (np.ndarray): Image scores when the images are given as they are, ``(N,)``.
    """

    maps: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    original_scores: np.ndarray


def predict_all(predict: Predict, images: ComparedImages, image_size: tuple[int, int]) -> Predictions:
    """Predict all images, resized beforehand and as they are.

    Args:
        predict (Predict): Model in some format.
        images (ComparedImages): Images.
        image_size (tuple[int, int]): Height and width in pixels that the model computes on.

    Returns:
        Predictions: Predictions in the order of the images.
    """
    batches, original_scores = [], []
    for resized, originals in images.batches(BATCH_SIZE, image_size):
        batches.append(predict(resized))
        original_scores += [predict(original)["pred_score"].item() for original in originals]
    return Predictions(
        maps=np.concatenate([batch["anomaly_map"] for batch in batches]),
        scores=np.concatenate([batch["pred_score"].reshape(-1) for batch in batches]),
        labels=np.concatenate([batch["pred_label"].reshape(-1) for batch in batches]).astype(bool),
        original_scores=np.array(original_scores),
    )


def compare(reference: Predictions, other: Predictions, labels: np.ndarray | None) -> dict[str, float]:
    """Measure how predictions differ from those of the checkpoint.

    Args:
        reference (Predictions): Predictions of the checkpoint in torch.
        other (Predictions): Predictions of a format.
        labels (np.ndarray | None): True where an image is anomalous, if that is known.

    Returns:
        dict[str, float]: Largest and mean difference of a pixel and of a score; Spearman's rank correlation of the
        scores; share of predicted labels that differ; largest difference of a score when the format is given the
        images as they are; image AUROC and its difference, which are NaN unless both classes are there.

    Raises:
        ValueError: If the format predicts numbers that are not finite.
    """
    if not all(np.isfinite(values).all() for values in (other.maps, other.scores, other.original_scores)):
        msg = "it predicts numbers that are not finite"
        raise ValueError(msg)
    of_maps, of_scores = np.abs(other.maps - reference.maps), np.abs(other.scores - reference.scores)
    before, after = (_auroc(labels, predictions.scores) for predictions in (reference, other))
    return {
        "map_max": float(of_maps.max()),
        "map_mean": float(of_maps.mean()),
        "score_max": float(of_scores.max()),
        "score_mean": float(of_scores.mean()),
        "rank_correlation": _rank_correlation(reference.scores, other.scores),
        "flipped_labels": float((other.labels != reference.labels).mean()),
        "original_score_max": float(np.abs(other.original_scores - reference.original_scores).max()),
        "auroc": after,
        "auroc_change": after - before,
    }


def seconds_per_call(predict: Predict, images: np.ndarray) -> float:
    """Time a prediction, after one that is not counted.

    Args:
        predict (Predict): Model in some format.
        images (np.ndarray): Batch ``(B, 3, H, W)``.

    Returns:
        float: Median of the wall-clock seconds of a call.
    """
    predict(images)
    seconds: list[float] = []
    while sum(seconds) < SECONDS:
        start = time.perf_counter()
        predict(images)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's correlation, NaN where it does not exist."""
    defined = all(len(np.unique(scores)) > 1 for scores in (first, second))
    return float(spearmanr(first, second).statistic) if defined else float("nan")


def _auroc(labels: np.ndarray | None, scores: np.ndarray) -> float:
    """Return the image AUROC, NaN where it does not exist."""
    return float("nan") if labels is None or len(np.unique(labels)) < 2 else float(roc_auc_score(labels, scores))
