# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Runs that count steps see the same images after they are resumed, with two batches in an epoch."""

import pytest
import torch

from anomalib_mediclip import CutPaste, PatchSVDD, SimpleNet
from anomalib_mediclip.host import periodic_checkpoint
from tests.integration.test_fitted_module import TINY, Stop, sample_datamodule, steps
from tests.integration.test_training import assert_same, checkpoint_of

SIMPLENET = {"encoder": "timm/resnet18", "weights": None, "image_size": (64, 64), "noise": 0.5, "visualizer": False}
PATCHES = {"image_size": (128, 128), "embedding_dim": 8, "strides": (32, 16), "pairs": 2, "visualizer": False}
MODELS = {"SimpleNet": (SimpleNet, SIMPLENET), "CutPaste": (CutPaste, TINY), "PatchSVDD": (PatchSVDD, PATCHES)}


def fit(run, name: str, data, **options):
    model_class, arguments = MODELS[name]
    model, seen = model_class(**arguments), []
    step = model.training_step

    def watched(batch, *args, **kwargs):
        seen.append(sorted(batch.image_path))
        return step(batch, *args, **kwargs)

    model.training_step = watched
    try:
        run.fit(model, datamodule=data, **options)
    except SystemExit:
        seen.append("stopped")
    return {name: value.clone() for name, value in model.model.state_dict().items()}, seen


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", list(MODELS))
def test_a_killed_run_ends_in_the_bits_of_an_uninterrupted_one(
    sample_data, tmp_path, monkeypatch, name, workers
) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 0.0)

    def data():
        return sample_datamodule(sample_data, k_shot=8, num_workers=workers)

    whole, expected = fit(steps(tmp_path / "whole", 8, limit_val_batches=0), name, data())
    cut = steps(tmp_path / "cut", 8, limit_val_batches=0, callbacks=[Stop()])
    _, before = fit(cut, name, data())
    assert before[-1] == "stopped"
    checkpoint = checkpoint_of(tmp_path / "cut")
    done = torch.load(checkpoint, weights_only=True)["global_step"]
    resumed, after = fit(steps(tmp_path / "resumed", 8, limit_val_batches=0), name, data(), ckpt_path=checkpoint)
    assert after == expected[done:]
    assert_same(whole, resumed)


def test_a_finished_run_that_is_prolonged_goes_on_with_the_next_epoch(sample_data, tmp_path) -> None:
    def data():
        return sample_datamodule(sample_data, k_shot=8)

    whole, expected = fit(steps(tmp_path / "whole", 8), "SimpleNet", data())
    fit(steps(tmp_path / "first", 4), "SimpleNet", data())
    checkpoint = checkpoint_of(tmp_path / "first")
    prolonged, after = fit(steps(tmp_path / "second", 8), "SimpleNet", data(), ckpt_path=checkpoint)
    assert after == expected[4:]
    assert_same(whole, prolonged)
