# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Raw predictions and the figures that follow from them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_mediclip.benchmark.raw_predictions import RawPredictions


def batch(start: int, labels: list[int], masks: torch.Tensor | None, scale: float = 1.0) -> ImageBatch:
    generator = torch.Generator().manual_seed(start)
    count = len(labels)
    maps = scale * torch.randn(count, 1, 16, 16, generator=generator)
    return ImageBatch(
        image=torch.zeros(count, 3, 16, 16),
        image_path=[f"set/{start + index}.png" for index in range(count)],
        gt_label=torch.tensor(labels),
        gt_mask=masks,
        anomaly_map=maps,
        pred_score=maps.amax(dim=(1, 2, 3)) + torch.tensor(labels),
    )


def filled(*batches: ImageBatch) -> RawPredictions:
    predictions = RawPredictions()
    for item in batches:
        predictions.add(item)
    return predictions


def outlines(*has_outline: bool) -> torch.Tensor:
    masks = torch.zeros(len(has_outline), 16, 16, dtype=torch.bool)
    for mask, outlined in zip(masks, has_outline, strict=True):
        mask[4:9, 4:9] = outlined
    return masks


def test_figures_equal_scikit_learn_on_unbounded_scores() -> None:
    predictions = filled(batch(0, [0, 1, 1, 0], None, scale=50), batch(4, [1, 0, 1], None, scale=50))
    scores, labels = predictions.scores.numpy(), predictions.labels.numpy()
    assert np.abs(scores).max() > 50  # a sigmoid would tie these
    figures = predictions.metrics()
    assert figures["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert figures["image_aupr"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert set(figures) == {"image_auroc", "image_aupr"}  # no masks


def test_pixels_of_anomalous_images_without_outline_do_not_count() -> None:
    masks = outlines(False, True, False)
    data = batch(0, [0, 1, 1], masks)
    figures = filled(data).metrics()
    known = data.anomaly_map[:2].flatten()
    assert figures["pixel_auroc"] == pytest.approx(roc_auc_score(masks[:2].flatten(), known), abs=1e-12)
    assert 0 <= figures["aupro"] <= 1
    assert filled(batch(0, [0, 1, 1], outlines(False, False, False))).metrics().keys() == {"image_auroc", "image_aupr"}


def test_missing_image_score_is_the_maximum_of_the_map() -> None:
    data = batch(0, [0, 1], None)
    expected = data.anomaly_map.amax(dim=(-2, -1)).flatten()
    data.pred_score = None
    torch.testing.assert_close(filled(data).scores, expected)


def test_saves_the_very_scores_and_the_same_examples_for_every_model(sample_data: Path, tmp_path: Path) -> None:
    paths = sorted((sample_data / "test" / "normal").glob("*.png"))[:4]
    paths += sorted((sample_data / "test" / "abnormal").glob("*.png"))[:6]
    saved = []
    for model in (1, 2):
        data = batch(model, [0] * 4 + [1] * 6, outlines(*[False] * 5, True, True, False, True, True))
        data.image_path = [str(path) for path in paths]
        predictions = filled(data)
        predictions.save(tmp_path / f"{model}.npz", sample_data, with_examples=True)
        arrays = dict(np.load(tmp_path / f"{model}.npz"))
        assert np.array_equal(arrays["scores"], predictions.scores.numpy())
        assert arrays["scores"].dtype == np.float32
        saved.append(arrays)
    assert saved[0]["names"][0] == paths[0].relative_to(sample_data).as_posix()
    assert np.array_equal(saved[0]["examples"], saved[1]["examples"])
    chosen = saved[0]["examples"]
    assert len(chosen) == 4
    assert set(chosen[:3]) <= {5, 6, 8, 9}  # outlined ones
    assert chosen[3] < 4  # a normal one
    assert saved[0]["images"].shape == (4, 16, 16, 3)
    assert saved[0]["images"].max() > 100
    assert saved[0]["masks"].sum(axis=(1, 2)).tolist() == [25, 25, 25, 0]


def test_without_examples_no_picture_is_kept(tmp_path: Path) -> None:
    filled(batch(0, [0, 1], None)).save(tmp_path / "a.npz", Path("set"), with_examples=False)
    assert set(np.load(tmp_path / "a.npz").files) == {"names", "labels", "scores"}


def test_models_without_maps_have_figures_of_images(tmp_path: Path) -> None:
    with_maps = batch(0, [0, 1, 1, 0], outlines(False, True, True, False))
    without = batch(0, [0, 1, 1, 0], outlines(False, True, True, False))
    without.anomaly_map = None
    figures = filled(without).metrics()
    assert figures == {name: filled(with_maps).metrics()[name] for name in ("image_auroc", "image_aupr")}
    filled(without).save(tmp_path / "scores.npz", Path("set"), with_examples=True)
    with np.load(tmp_path / "scores.npz") as arrays:
        assert sorted(arrays) == ["labels", "names", "scores"]
