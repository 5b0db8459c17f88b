# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Models with statistics of the support set: when these are computed, saved, refused and computed again."""

from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging

from anomalib_mediclip import CutPaste, MedicalFolder
from anomalib_mediclip.host import periodic_checkpoint
from anomalib_mediclip.models.components import fitted_module
from tests.integration.test_training import assert_same, checkpoint_of, engine

TINY = {"encoder": "timm/resnet18", "layer": 3, "image_size": (64, 64), "views": 2, "originals": 4, "visualizer": False}


def tiny_model(**options) -> CutPaste:
    return CutPaste(**{**TINY, **options})


def sample_datamodule(root: Path, **options) -> MedicalFolder:
    return MedicalFolder(**{"root": root, "k_shot": 4, "train_batch_size": 4, **options})


def steps(folder: Path, number: int | None = 4, **options):
    return engine(folder, **{"epochs": None, "max_steps": number, **options})


def trained(root: Path, folder: Path, number: int = 4, **options) -> CutPaste:
    model = tiny_model(**options)
    steps(folder, number).fit(model, datamodule=sample_datamodule(root))
    return model


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint_of(folder), weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> tuple[CutPaste, Path]:
    folder = tmp_path_factory.mktemp("run")
    model = tiny_model()
    steps(folder).train(model, datamodule=sample_datamodule(sample_data))
    return model, folder


def test_steps_are_counted_whatever_the_size_of_the_support_set(sample_data, tmp_path) -> None:
    for k_shot in (2, 12):
        model, run = tiny_model(), steps(tmp_path / str(k_shot), 5)
        run.fit(model, datamodule=sample_datamodule(sample_data, k_shot=k_shot))
        assert run.trainer.global_step == 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (10_000, None)),
        ({"max_steps": 7}, (7, None)),
        ({"max_epochs": 3}, (-1, 3)),
        ({"max_time": "00:00:01:00"}, (-1, None)),
    ],
)
def test_the_default_number_of_steps_holds_unless_the_user_gives_a_limit(
    sample_data, tmp_path, given, expected
) -> None:
    run = engine(tmp_path, **{"epochs": None, **given})
    run._setup_workspace(tiny_model(), datamodule=sample_datamodule(sample_data))
    run._setup_trainer(tiny_model())
    assert (run.trainer.max_steps, run.trainer.max_epochs) == expected


def test_statistics_are_those_of_the_weights_that_remain(run, sample_data) -> None:
    model, _ = run
    again = tiny_model()
    again.load_state_dict(model.state_dict())
    dataset = sample_datamodule(sample_data)
    dataset.setup()
    images = torch.stack([again.transformed(item.image) for item in dataset.train_data])
    with torch.no_grad():
        again.eval().model.fit(images, model.used_seed)
    assert_same(model.model.statistics.state_dict(), again.model.statistics.state_dict())


def test_checkpoint_reloads_to_the_same_scores(run) -> None:
    model, folder = run
    restored = CutPaste.load_from_checkpoint(checkpoint_of(folder)).eval()
    images = torch.rand(2, 3, 90, 100)
    with torch.no_grad():
        assert torch.equal(model.eval()(images).anomaly_map, restored(images).anomaly_map)
        assert torch.equal(model(images).pred_score, restored(images).pred_score)
    assert restored.is_calibrated
    assert restored.training_record["steps"] == 4


class Stop(Callback):
    """Ends a run without a word, as a kill would: nothing is done at its end."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def test_checkpoint_from_the_middle_of_a_training_has_no_statistics_and_says_so(
    sample_data, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 0.0)
    run = steps(tmp_path, 4, callbacks=[Stop()], limit_val_batches=0)
    with pytest.raises(SystemExit):
        run.fit(tiny_model(), datamodule=sample_datamodule(sample_data))
    state = saved(tmp_path)
    assert not state["support_hash"].any()
    assert state["model.statistics.mean"].numel() == 0
    cut = CutPaste.load_from_checkpoint(checkpoint_of(tmp_path))
    with pytest.raises(ValueError, match=r"CutPaste has no statistics of a support set.*resume with `anomalib train"):
        steps(tmp_path / "test").test(cut, datamodule=sample_datamodule(sample_data))
    with pytest.raises(ValueError, match="CutPaste has no statistics"):
        cut.to_onnx(tmp_path)
    whole = trained(sample_data, tmp_path / "whole")
    resumed = tiny_model()
    steps(tmp_path / "resumed").fit(
        resumed, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint_of(tmp_path)
    )
    assert_same(whole.model.state_dict(), resumed.model.state_dict())
    assert whole.is_calibrated
    assert resumed.is_calibrated


class StopAtTheEnd(Callback):
    """Ends a run after its last step, before anything is done about it."""

    def on_train_end(self, trainer, pl_module) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("limit_val_batches", [0, 1.0])
def test_a_run_that_was_killed_after_its_last_step_is_completed_when_it_is_resumed(
    sample_data, tmp_path, monkeypatch, limit_val_batches
) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 0.0)
    run = steps(tmp_path / "cut", 2, callbacks=[StopAtTheEnd()], limit_val_batches=0)
    with pytest.raises(SystemExit):
        run.fit(tiny_model(), datamodule=sample_datamodule(sample_data))
    assert not saved(tmp_path)["support_hash"].any()
    resumed = tiny_model()
    again = steps(tmp_path / "resumed", 2, limit_val_batches=limit_val_batches)
    again.fit(resumed, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint_of(tmp_path / "cut"))
    whole = trained(sample_data, tmp_path / "whole", 2)
    restored = CutPaste.load_from_checkpoint(checkpoint_of(tmp_path / "resumed"))
    assert_same(whole.model.state_dict(), restored.model.state_dict())
    assert restored.is_calibrated == bool(limit_val_batches)


def test_statistics_too_large_for_a_checkpoint_are_computed_again_from_the_same_support_set(
    run, sample_data, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(fitted_module, "LARGEST_SAVED", 100)
    model = trained(sample_data, tmp_path)
    state = saved(tmp_path)
    assert state["model.statistics.mean"].numel() == 0
    assert state["support_hash"].any()
    restored = CutPaste.load_from_checkpoint(checkpoint_of(tmp_path))
    assert restored.is_calibrated
    other = sample_datamodule(sample_data, seed=1)
    with pytest.raises(ValueError, match=r"the support set given here is another one.*data\.k_shot and data\.seed"):
        steps(tmp_path / "other").test(restored, datamodule=other)
    with pytest.raises(ValueError, match=r"but there is none here"):
        steps(tmp_path / "none").predict(restored, data_path=sample_data / "test")
    with pytest.raises(ValueError, match=r"larger than the .* fit into a checkpoint. Train with fewer support images"):
        restored.to_onnx(tmp_path)
    (metrics,) = steps(tmp_path / "same").test(restored, datamodule=sample_datamodule(sample_data))
    (expected,) = steps(tmp_path / "first").test(model, datamodule=sample_datamodule(sample_data))
    assert metrics == expected
    assert_same(restored.model.statistics.state_dict(), model.model.statistics.state_dict())


def test_statistics_too_large_for_a_file_are_not_exported(run, tmp_path, monkeypatch) -> None:
    model, _ = run
    monkeypatch.setattr(fitted_module, "LARGEST_EXPORTED", 100)
    with pytest.raises(ValueError, match=r"fit into an export to ONNX\. Train with fewer support images"):
        model.to_onnx(tmp_path)
    assert model.to_torch(tmp_path).is_file()


def test_validation_alone_finds_the_thresholds_of_the_training(run, sample_data, tmp_path) -> None:
    from anomalib_mediclip.host.post_processor import forget_thresholds

    model, folder = run
    alone = CutPaste.load_from_checkpoint(checkpoint_of(folder))
    forget_thresholds(alone.post_processor)
    steps(tmp_path).validate(alone, datamodule=sample_datamodule(sample_data))
    assert torch.equal(alone.post_processor.image_threshold, model.post_processor.image_threshold)
    assert torch.equal(alone.post_processor.pixel_threshold, model.post_processor.pixel_threshold)


def test_averaged_weights_have_statistics_of_their_own(sample_data, tmp_path) -> None:
    model = tiny_model(learning_rate=0.3)
    callback = EMAWeightAveraging(decay=0.5)
    run = steps(tmp_path, 4, callbacks=[callback])
    run.fit(model, datamodule=sample_datamodule(sample_data))
    plain = trained(sample_data, tmp_path / "plain", learning_rate=0.3)
    assert not torch.equal(model.model.head[0].weight, plain.model.head[0].weight)
    restored = CutPaste.load_from_checkpoint(checkpoint_of(tmp_path))
    restored_statistics = restored.model.statistics.state_dict()
    again = tiny_model()
    again.load_state_dict(restored.state_dict())
    data = sample_datamodule(sample_data)
    data.setup()
    with torch.no_grad():
        images = torch.stack([again.transformed(item.image) for item in data.train_data])
        again.eval().model.fit(images, 0)
    assert_same(restored_statistics, again.model.statistics.state_dict())
    assert restored.is_calibrated


def test_a_control_trains_nothing_whatever_the_trainer_is_told(sample_data, tmp_path, recwarn) -> None:
    model = tiny_model(train_stages=0)
    before = {name: value.clone() for name, value in model.model.encoder.state_dict().items()}
    run = steps(tmp_path, 50)
    (metrics,) = run.train(model, datamodule=sample_datamodule(sample_data))
    assert run.trainer.global_step == 0
    assert not [warning for warning in recwarn if "configure_optimizers" in str(warning.message)]
    assert_same(before, model.model.encoder.state_dict())
    assert 0 <= metrics["image_AUROC"] <= 1
    assert CutPaste.load_from_checkpoint(checkpoint_of(tmp_path)).is_calibrated
    assert CutPaste.load_from_checkpoint(checkpoint_of(tmp_path)).training_record["test"]["images"] == 40
