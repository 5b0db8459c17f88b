# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Estimate of a long training."""

import pytest
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from anomalib_mediclip.models.components import time_estimate
from anomalib_mediclip.models.components.time_estimate import TimeEstimate


class TwoSteps(LightningModule):
    """Takes two steps of an optimizer in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.automatic_optimization = False

    def training_step(self, batch) -> None:
        for optimizer in self.optimizers():
            self.manual_backward(self.layer(batch).sum())
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.0) for _ in range(2)]


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Let ten minutes pass between two looks at the clock."""
    now = [0.0]

    def tick() -> float:
        now[0] += 600
        return now[0]

    monkeypatch.setattr(time_estimate.time, "monotonic", tick)
    return now


def fit(folder, **options) -> None:
    trainer = Trainer(
        accelerator="cpu", callbacks=[TimeEstimate()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **options,
    )  # fmt: skip
    trainer.fit(TwoSteps(), DataLoader(torch.ones(5, 1)))


@pytest.mark.parametrize(("options", "expected"), [
    ({"max_steps": 100, "max_epochs": -1}, "8 h"),  # 47 batches are left after the third, of two steps
    ({"max_epochs": 20}, "16 h"),  # 97 batches
    ({"max_epochs": 20, "max_steps": 100}, "8 h"),
])  # fmt: skip
def test_a_long_training_is_announced_once(tmp_path, clock, caplog, options, expected) -> None:
    fit(tmp_path, **options)
    (message,) = [text for text in caplog.messages if "This training takes" in text]
    assert f"about {expected} more on this CPU: 600.0 s a batch" in message


@pytest.mark.parametrize("options", [{"max_epochs": 1}, {"max_epochs": 20, "max_time": {"hours": 1000}}])
def test_short_and_limited_trainings_are_not(tmp_path, clock, caplog, options) -> None:
    fit(tmp_path, **options)
    assert "This training takes" not in caplog.text
