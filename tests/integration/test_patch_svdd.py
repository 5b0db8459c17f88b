# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patch SVDD through anomalib's Engine."""

import numpy as np
import pytest
import torch
from anomalib.models import get_model

from anomalib_mediclip import PatchSVDD
from anomalib_mediclip.export import ExportedModel
from anomalib_mediclip.host import periodic_checkpoint
from anomalib_mediclip.io import read_image
from tests.integration.test_fitted_module import Stop, sample_datamodule, steps
from tests.integration.test_training import assert_same, checkpoint_of

TINY = {"image_size": (128, 128), "embedding_dim": 16, "strides": (32, 16), "pairs": 4, "visualizer": False}


def tiny_model(**options) -> PatchSVDD:
    return PatchSVDD(**{**TINY, **options})


def weights(model: PatchSVDD) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def test_anomalib_finds_it_by_its_short_name() -> None:
    assert isinstance(get_model("PatchSVDD", image_size=(128, 128)), PatchSVDD)


def test_it_is_trained_tested_and_calibrated_on_distances(sample_data, tmp_path) -> None:
    model = tiny_model()
    before = weights(model)
    (metrics,) = steps(tmp_path, 3).train(model, datamodule=sample_datamodule(sample_data))
    assert set(metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    after = weights(model)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert {name.split(".")[0] for name in changed} == {
        "mean", "small_encoder", "large_encoder", "large_classifier", "small_classifier", "statistics",
    }  # fmt: skip
    images = torch.rand(2, 3, 100, 120)
    restored = PatchSVDD.load_from_checkpoint(checkpoint_of(tmp_path)).eval()
    with torch.no_grad():
        shown = model.eval()(images)
        raw = model.model(model.pre_processor(images))
        assert torch.equal(restored(images).anomaly_map, shown.anomaly_map)
    torch.testing.assert_close(
        shown.pred_score, raw.pred_score / (raw.pred_score + model.post_processor.image_threshold)
    )


def test_a_resumed_run_ends_in_the_bits_of_an_uninterrupted_one(sample_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 0.0)
    whole, cut, resumed = tiny_model(), tiny_model(), tiny_model()
    steps(tmp_path / "whole", 4).fit(whole, datamodule=sample_datamodule(sample_data))
    run = steps(tmp_path / "cut", 4, callbacks=[Stop()], limit_val_batches=0)
    with pytest.raises(SystemExit):
        run.fit(cut, datamodule=sample_datamodule(sample_data))
    torch.manual_seed(5)  # the state of the global generator must not matter
    data = sample_datamodule(sample_data, num_workers=2)
    steps(tmp_path / "resumed", 4).fit(resumed, datamodule=data, ckpt_path=checkpoint_of(tmp_path / "cut"))
    assert_same(weights(whole), weights(resumed))
    other = tiny_model(seed=1)
    steps(tmp_path / "other", 4).fit(other, datamodule=sample_datamodule(sample_data))
    assert not torch.equal(
        whole.model.small_encoder.convolutions[0].weight, other.model.small_encoder.convolutions[0].weight
    )


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_exports_agree_on_real_images(sample_data, tmp_path, form, monkeypatch) -> None:
    from anomalib_mediclip.models.patch_svdd import memory_bank

    monkeypatch.setattr(memory_bank, "ROWS_AT_ONCE", 50)  # several tiles
    model = tiny_model()
    steps(tmp_path / "run", 2).fit(model, datamodule=sample_datamodule(sample_data))
    exported = ExportedModel(getattr(model.eval(), f"to_{form}")(tmp_path))
    images = torch.stack([read_image(path) for path in sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]])
    with torch.no_grad():
        expected = model(images)
    found = exported(images.numpy())
    np.testing.assert_allclose(found["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
    np.testing.assert_allclose(found["pred_score"], expected.pred_score.numpy(), atol=1e-3)


@pytest.mark.parametrize("k_shot", [1, 2])
def test_very_small_support_sets_are_calibrated_above_zero(sample_data, tmp_path, k_shot) -> None:
    model = tiny_model()
    (metrics,) = steps(tmp_path, 1).train(model, datamodule=sample_datamodule(sample_data, k_shot=k_shot))
    assert 0 <= metrics["image_AUROC"] <= 1
    assert model.post_processor.image_threshold > 0
    assert model.post_processor.normal_scores.min() > 0


def test_a_huge_weight_collapses_and_the_user_is_warned_with_the_figures(sample_data, tmp_path, caplog) -> None:
    model = tiny_model(svdd_weight=1e4, learning_rate=1e-2)
    steps(tmp_path, 12).fit(model, datamodule=sample_datamodule(sample_data))
    assert "The embeddings of all patches are nearly equal" in caplog.text
    assert "Lower --model.svdd_weight (10000)" in caplog.text


def test_the_control_stays_random(sample_data, tmp_path, caplog) -> None:
    model = tiny_model(learning_rate=0.0)
    before = weights(model)
    run = steps(tmp_path, 9)
    run.fit(model, datamodule=sample_datamodule(sample_data))
    learnt = [name for name in before if not name.startswith(("statistics", "mean"))]
    assert run.trainer.global_step == 0
    assert_same({name: before[name] for name in learnt}, {name: weights(model)[name] for name in learnt})
    assert len(model.model.statistics.large) == 4 * 9
    assert "nearly equal" not in caplog.text


def test_a_loss_that_is_not_finite_stops_the_run_with_the_cure(sample_data, tmp_path) -> None:
    model = tiny_model(svdd_weight=float("inf"))
    with pytest.raises(FloatingPointError, match=r"The loss is .* at step .*--model.learning_rate"):
        steps(tmp_path, 3).fit(model, datamodule=sample_datamodule(sample_data))
