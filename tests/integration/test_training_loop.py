# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Work that the training loop leaves out or does early, without a change of the outcome."""

import pytest
import torch
from lightning import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from tests.integration.test_training import checkpoint_of, engine, sample_datamodule, tiny_model


class ReadValues(TorchDispatchMode):
    """Counts how often a tensor's value is read, for which a GPU would have to finish what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
        return func(*args, **(kwargs or {}))


def fitted(model, root, folder, epochs=2, **options):
    engine(folder, epochs, **options).fit(model, datamodule=sample_datamodule(root))
    return model


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


def test_no_process_is_started_for_an_epoch(official, sample_data, tmp_path):
    loaders: set[int] = set()

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            loaders.add(trainer.train_dataloader.num_workers)

    fitted(tiny_model(official), sample_data, tmp_path, callbacks=[Watch()])
    assert loaders == {0}
