# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Work that the training loop leaves out or does early, without a change of the outcome."""

import pytest
import torch
from lightning import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_mediclip.models.mediclip.lightning_model import PaintedBatch
from anomalib_mediclip.models.mediclip.support_features import SupportFeatures
from tests.integration.test_training import (
    assert_same,
    checkpoint_of,
    engine,
    learnt,
    sample_datamodule,
    tiny_model,
)

WITH_IDENTITY = {"tasks": {"source": 0.5, "identity": 0.5}}


class ReadValues(TorchDispatchMode):
    """Counts how often a tensor's value is read, for which a GPU would have to finish what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
        return func(*args, **(kwargs or {}))


class Sizes:
    """Notes how many images the encoder gets at a time while it trains."""

    def __init__(self, model) -> None:
        self.batches: list[int] = []
        self._model = model
        model.model.vision_encoder.register_forward_pre_hook(self._note)

    def _note(self, module, inputs) -> None:
        if self._model.training:
            self.batches.append(len(inputs[0]))


def fitted(model, root, folder, epochs=2, **options):
    engine(folder, epochs, **options).fit(model, datamodule=sample_datamodule(root))
    return model


def test_painting_before_the_transfer_gives_the_weights_of_painting_in_the_step(official, sample_data, tmp_path):
    early, late = tiny_model(official), tiny_model(official)
    painted_in_step: dict[str, list[bool]] = {"early": [], "late": []}

    def watch(model, noted: list[bool]) -> None:
        step = model.training_step
        model.training_step = lambda batch: noted.append(not isinstance(batch, PaintedBatch)) or step(batch)

    watch(early, painted_in_step["early"])
    watch(late, painted_in_step["late"])
    late.on_before_batch_transfer = lambda batch, dataloader_idx: batch
    fitted(early, sample_data, tmp_path / "early")
    fitted(late, sample_data, tmp_path / "late")
    assert set(painted_in_step["early"]) == {False}
    assert set(painted_in_step["late"]) == {True}
    assert_same(learnt(early), learnt(late))


def test_a_step_reads_the_loss_of_the_step_before_and_nothing_else(official, sample_data, tmp_path):
    model, reads = tiny_model(official), []
    step = model.training_step

    def counted(batch):
        with ReadValues() as values:
            loss = step(batch)
        reads.append(values.count)
        return loss

    model.training_step = counted
    fitted(model, sample_data, tmp_path)
    assert reads == [0, 1, 0, 1]  # the last loss of an epoch is read when the epoch ends


def test_a_last_step_that_diverges_is_not_saved(official, sample_data, tmp_path):
    model = tiny_model(official)
    loss, steps = model.loss.forward, []
    model.loss.forward = lambda *args: loss(*args) * (float("nan") if steps.append(0) or len(steps) == 4 else 1)
    with pytest.raises(FloatingPointError, match=r"step 3 \(epoch 1\)"):
        fitted(model, sample_data, tmp_path)
    assert torch.load(checkpoint_of(tmp_path), weights_only=True)["global_step"] == 2


def test_unchanged_images_are_encoded_once(official, sample_data, tmp_path):
    model = tiny_model(official, synthesis=WITH_IDENTITY)
    sizes = Sizes(model)
    fitted(model, sample_data, tmp_path, epochs=6)
    generator, names = model.anomaly_generator, list(model._names.values())
    unchanged = [name for epoch in range(6) for name in names if generator.draw_task(name, epoch) == "identity"]
    assert 8 < len(unchanged) < 40
    assert sum(sizes.batches) == 6 * 8 - len(unchanged) + len(set(unchanged))


def test_features_kept_change_the_weights_by_rounding_only(official, sample_data, tmp_path, monkeypatch):
    kept = learnt(fitted(tiny_model(official, synthesis=WITH_IDENTITY), sample_data, tmp_path / "kept"))
    without = tiny_model(official, synthesis=WITH_IDENTITY)
    monkeypatch.setattr(SupportFeatures, "encode", lambda self, images, names: None)
    for name, value in learnt(fitted(without, sample_data, tmp_path / "without")).items():
        torch.testing.assert_close(kept[name], value, rtol=1e-4, atol=1e-5)


def test_resumed_run_with_features_kept_ends_in_the_weights_of_an_uninterrupted_one(official, sample_data, tmp_path):
    whole = learnt(fitted(tiny_model(official, synthesis=WITH_IDENTITY), sample_data, tmp_path / "whole", epochs=4))
    fitted(tiny_model(official, synthesis=WITH_IDENTITY), sample_data, tmp_path / "cut", epochs=2)
    resumed = tiny_model(official, synthesis=WITH_IDENTITY)
    run, checkpoint = engine(tmp_path / "resumed", 4), checkpoint_of(tmp_path / "cut")
    run.fit(resumed, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint)
    assert_same(whole, learnt(resumed))


def test_no_process_is_started_for_an_epoch(official, sample_data, tmp_path):
    loaders: set[int] = set()

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            loaders.add(trainer.train_dataloader.num_workers)

    fitted(tiny_model(official), sample_data, tmp_path, callbacks=[Watch()])
    assert loaders == {0}
