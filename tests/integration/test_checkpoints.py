# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Moments at which a run writes its checkpoint."""

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint

from anomalib_mediclip.host import periodic_checkpoint
from anomalib_mediclip.models.components import checkpoint_methods
from tests.integration.test_training import checkpoint_of, engine, sample_datamodule, tiny_model


def epochs_with_a_checkpoint(official, root, folder, monkeypatch, **options) -> list[int]:
    written: list[int] = []
    save = ModelCheckpoint._save_checkpoint
    monkeypatch.setattr(
        ModelCheckpoint,
        "_save_checkpoint",
        lambda self, trainer, path: written.append(trainer.current_epoch) or save(self, trainer, path),
    )
    engine(folder, **options).fit(tiny_model(official), datamodule=sample_datamodule(root))
    return written


@pytest.mark.parametrize(("interval", "expected"), [(1e6, [0, 4]), (0.0, [0, 1, 2, 3, 4])])
def test_checkpoints_wait_for_the_interval_but_not_at_start_and_end(
    official, sample_data, tmp_path, monkeypatch, interval, expected
) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", interval)
    assert epochs_with_a_checkpoint(official, sample_data, tmp_path, monkeypatch, epochs=4) == expected


def test_a_checkpoint_callback_of_the_user_is_obeyed(official, sample_data, tmp_path, monkeypatch) -> None:
    own = ModelCheckpoint(dirpath=tmp_path, filename="model", every_n_epochs=2)
    assert epochs_with_a_checkpoint(official, sample_data, tmp_path, monkeypatch, epochs=4, callbacks=[own]) == [1, 3]


@pytest.mark.parametrize("options", [{"epochs": -1, "max_time": {"seconds": 1}}, {"epochs": -1, "max_steps": 5}])
def test_the_last_checkpoint_holds_the_last_step_however_the_run_ends(
    official, sample_data, tmp_path, monkeypatch, options
) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 1e6)
    run = engine(tmp_path, **options)
    run.fit(tiny_model(official), datamodule=sample_datamodule(sample_data))
    assert torch.load(checkpoint_of(tmp_path), weights_only=True)["global_step"] == run.trainer.global_step


def test_writing_takes_a_fiftieth_of_the_time_at_most(official, sample_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 1e-3)
    monkeypatch.setattr(periodic_checkpoint, "FAST_WRITE", 1e-9)  # even the smallest file takes too long
    assert epochs_with_a_checkpoint(official, sample_data, tmp_path, monkeypatch, epochs=4) == [0, 4]


@pytest.mark.parametrize("limit", [checkpoint_methods.LARGE_STATE, 0])
def test_a_large_state_of_the_optimizer_is_not_in_the_last_checkpoint(
    official, sample_data, tmp_path, monkeypatch, caplog, limit
) -> None:
    monkeypatch.setattr(checkpoint_methods, "LARGE_STATE", limit)
    engine(tmp_path / "run", 2).fit(tiny_model(official), datamodule=sample_datamodule(sample_data))
    path = checkpoint_of(tmp_path / "run")
    states = torch.load(path, weights_only=True)["optimizer_states"]
    assert bool(states) == (limit > 0)
    model = tiny_model(official)
    engine(tmp_path / "same", 2).fit(model, datamodule=sample_datamodule(sample_data), ckpt_path=path)
    assert "holds no state of its optimizers" not in caplog.text
    run = engine(tmp_path / "longer", 3)
    run.fit(tiny_model(official), datamodule=sample_datamodule(sample_data), ckpt_path=path)
    assert run.trainer.current_epoch == 3
    assert ("holds no state of its optimizers" in caplog.text) == (limit == 0)


def test_a_run_that_goes_on_keeps_the_state_of_its_optimizer(official, sample_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint_methods, "LARGE_STATE", 0)
    options = {"epochs": 10_000, "max_time": {"seconds": 1}}
    engine(tmp_path, **options).fit(tiny_model(official), datamodule=sample_datamodule(sample_data))
    assert torch.load(checkpoint_of(tmp_path), weights_only=True)["optimizer_states"]
