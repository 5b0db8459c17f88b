# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Seeds: what is given holds, else the global one, else 0; and the one used is recorded."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from lightning import seed_everything

from anomalib_mediclip import MediCLIP, SimpleNet
from tests.integration.test_training import assert_same, checkpoint_of, engine, learnt, sample_datamodule, tiny_model

LITE = {"encoder": "timm/resnet18", "weights": None, "layers": [2, 3]}


def trained(official, root: Path, folder: Path, **seeds: int | None) -> MediCLIP:
    model = tiny_model(official, **({"seed": seeds["model"]} if "model" in seeds else {}))
    data = sample_datamodule(root, **({"seed": seeds["data"]} if "data" in seeds else {}))
    engine(folder).fit(model, datamodule=data)
    return model


@pytest.mark.slow
def test_none_given_is_the_global_seed_or_zero(official, sample_data, tmp_path, monkeypatch) -> None:
    given = {s: learnt(trained(official, sample_data, tmp_path / f"{s}", model=s, data=s)) for s in (0, 3)}
    assert_same(learnt(trained(official, sample_data, tmp_path / "none")), given[0])
    seed_everything(3)
    assert_same(learnt(trained(official, sample_data, tmp_path / "global")), given[3])
    assert_same(learnt(trained(official, sample_data, tmp_path / "both", model=0, data=0)), given[0])
    checkpoint = torch.load(checkpoint_of(tmp_path / "global"), weights_only=True)
    assert checkpoint["training_record"]["seed"] == checkpoint["hyper_parameters"]["seed"] == 3
    assert checkpoint["training_record"]["data"]["seed"] == 3


@pytest.mark.slow
def test_a_global_seed_set_after_the_model_was_made_is_followed(official, sample_data, tmp_path, monkeypatch) -> None:
    given = learnt(trained(official, sample_data, tmp_path / "given", model=3, data=3))
    model, data = tiny_model(official), sample_datamodule(sample_data)
    seed_everything(3)
    engine(tmp_path / "later").fit(model, datamodule=data)
    assert_same(learnt(model), given)


def test_weights_that_were_loaded_are_kept_whatever_the_seed(official, sample_data, tmp_path) -> None:
    loaded, model = tiny_model(official, seed=7), tiny_model(official)
    model.load_state_dict(loaded.state_dict())
    seed_everything(3)
    engine(tmp_path, epochs=0).fit(model, datamodule=sample_datamodule(sample_data))
    assert_same(learnt(model), learnt(loaded))


@pytest.mark.slow
def test_a_run_is_resumed_with_the_seed_it_was_started_with(official, sample_data, tmp_path, monkeypatch) -> None:
    seed_everything(3)
    whole = learnt(trained(official, sample_data, tmp_path / "whole"))
    engine(tmp_path / "first", 1).fit(tiny_model(official), datamodule=sample_datamodule(sample_data))
    monkeypatch.delenv("PL_GLOBAL_SEED")
    model = tiny_model(official)
    data = sample_datamodule(sample_data, seed=3)
    engine(tmp_path / "second", 2).fit(model, datamodule=data, ckpt_path=checkpoint_of(tmp_path / "first"))
    assert_same(learnt(model), whole)


def test_another_seed_than_a_run_was_started_with_is_said(official, sample_data, tmp_path, caplog) -> None:
    engine(tmp_path, 1).fit(tiny_model(official), datamodule=sample_datamodule(sample_data))
    engine(tmp_path, 2).fit(
        tiny_model(official, seed=5), datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint_of(tmp_path)
    )
    assert "resumed with model.seed 5; it was started with 0" in caplog.text


def test_negative_seeds_are_refused() -> None:
    for model in (MediCLIP, SimpleNet):
        with pytest.raises(ValueError, match="seed=-1: it must not be negative"):
            model(**LITE, seed=-1, **({"prompt": "prototype"} if model is MediCLIP else {}))


def noise_of(folder: Path, root: Path, **options) -> list[torch.Tensor]:
    model = SimpleNet(**LITE, image_size=(64, 64), visualizer=False)
    drawn: list[torch.Tensor] = []
    generator = model.generator_of_batch
    model.generator_of_batch = lambda index: drawn.append(torch.rand(3, generator=generator(index))) or generator(index)
    engine(folder, **options).fit(model, datamodule=sample_datamodule(root, k_shot=4, train_batch_size=1))
    return drawn


def test_every_batch_of_an_accumulated_step_has_its_own_noise(sample_data, tmp_path) -> None:
    drawn = noise_of(tmp_path, sample_data, epochs=2, accumulate_grad_batches=2, limit_val_batches=0)
    assert len({tuple(noise.tolist()) for noise in drawn}) == len(drawn) == 8


def test_noise_of_plain_runs_is_that_of_the_step_alone(sample_data, tmp_path) -> None:
    import numpy as np

    drawn = noise_of(tmp_path, sample_data, epochs=1, limit_val_batches=0)
    for step, noise in enumerate(drawn):
        (seed,) = np.random.SeedSequence([0, step]).generate_state(1, np.uint64)
        assert torch.equal(noise, torch.rand(3, generator=torch.Generator().manual_seed(int(seed >> np.uint64(1)))))


def test_every_process_has_its_own_noise(monkeypatch) -> None:
    model = SimpleNet(**LITE)
    monkeypatch.setattr(SimpleNet, "trainer", type("Trainer", (), {"accumulate_grad_batches": 1, "global_step": 4}))
    drawn = []
    for rank in range(2):
        monkeypatch.setattr(SimpleNet, "global_rank", rank)
        drawn.append(torch.rand(3, generator=model.generator_of_batch(0)))
    assert not torch.equal(*drawn)


@pytest.mark.slow
def test_the_stock_benchmark_gives_another_row_for_another_seed(sample_data, tmp_path) -> None:
    model = {
        "class_path": "MediCLIP",
        "init_args": {**LITE, "prompt": "prototype", "image_size": [64, 64], "visualizer": False},
    }
    content = {
        "accelerator": ["cpu"],
        "benchmark": {
            "seed": {"grid": [1, 2, 1]},
            "model": model,
            "data": {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data), "k_shot": 4}},
        },
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(content))
    code = (
        "import sys, anomalib_mediclip; anomalib_mediclip.MediCLIP.MAX_EPOCHS = 2\n"
        f"sys.argv = ['anomalib', 'benchmark', '--config', {str(tmp_path / 'benchmark.yaml')!r}]\n"
        "from anomalib.cli.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    (table,) = tmp_path.rglob("results.csv")
    rows = pd.read_csv(table)[["image_AUROC", "pixel_AUROC", "image_F1Score"]]
    assert not rows.loc[0].equals(rows.loc[1])
    assert rows.loc[0].equals(rows.loc[2])
