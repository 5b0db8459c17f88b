# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""However a fit ends: memory, checkpoint, export and record hold the thresholds of the weights that remain."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine
from anomalib.metrics import AUROC, Evaluator
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, StochasticWeightAveraging

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.evaluation import MedicalEvaluator
from anomalib_mediclip.evaluation.calibration import describe_thresholds
from anomalib_mediclip.host import periodic_checkpoint
from anomalib_mediclip.models.components.training_record import record_file
from tests.integration.test_training import checkpoint_of, engine, learnt, sample_datamodule, tiny_model

RATE = 0.05  # so high that each step moves the thresholds


class StopAt(Callback):
    """Ends a run as a user's callback would: it asks for the end, or raises."""

    def __init__(self, step: int, error: type[BaseException] | None = None) -> None:
        self.step, self.error = step, error

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self.step:
            if self.error:
                raise self.error
            trainer.should_stop = True


def validation_metric() -> MedicalEvaluator:
    return MedicalEvaluator(val_metrics=[AUROC(fields=["pred_score", "gt_label"], prefix="val_")])


def right_thresholds(model: MediCLIP, root: Path, folder: Path, **data_options: Any) -> dict[str, Any]:
    """Find the thresholds of the present weights from scratch, by a validation of a copy."""
    from anomalib_mediclip.host.post_processor import forget_thresholds

    alone = copy.deepcopy(model)
    forget_thresholds(alone.post_processor)
    engine(folder).validate(alone, datamodule=sample_datamodule(root, **data_options))
    return describe_thresholds(alone.post_processor)


def assert_agree(run: Engine, model: MediCLIP, root: Path, folder: Path, **data_options: Any) -> None:
    """Memory, checkpoint, export and the record of the test hold the thresholds of these weights."""
    import onnxruntime

    expected = right_thresholds(model, root, folder / "alone", **data_options)
    assert None not in expected.values()
    assert describe_thresholds(model.post_processor) == expected
    assert Path(run.best_model_path).is_relative_to(run.trainer.default_root_dir)
    restored = MediCLIP.load_from_checkpoint(run.best_model_path)
    assert restored.hash_learnt() == model.hash_learnt()
    assert describe_thresholds(restored.post_processor) == expected
    assert restored.is_calibrated
    record = json.loads(record_file(run.best_model_path).read_text())
    assert record["thresholds"] == expected
    assert record["weights"] == model.hash_learnt()
    assert record["metrics"] == engine(folder / "again").test(model, datamodule=run.trainer.datamodule)[0]
    images = torch.rand(2, 3, 84, 84)
    session = onnxruntime.InferenceSession(restored.to_onnx(folder), providers=["CPUExecutionProvider"])
    (scores,) = session.run(["pred_score"], {"input": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), model.eval()(images).pred_score, atol=1e-5, rtol=0)


WAYS: dict[str, dict[str, Any]] = {
    "last epoch": {"epochs": 3},
    "max_steps within an epoch": {"epochs": -1, "max_steps": 3},
    "max_time": {"epochs": -1, "max_time": {"seconds": 1}},
    "should_stop": {"epochs": 9, "callbacks": [StopAt(3)]},
    "early stopping": {"epochs": 9, "callbacks": [EarlyStopping("val_AUROC", patience=1, mode="max")]},
    "weights averaged at the end": {"epochs": 4, "callbacks": [StochasticWeightAveraging(0.05, swa_epoch_start=1)]},
    "weights averaged all the time": {"epochs": 4, "callbacks": [EMAWeightAveraging(decay=0.8)]},
    "epochs without validation": {"epochs": 4, "check_val_every_n_epoch": 3},
    "validation within an epoch": {"epochs": 2, "val_check_interval": 0.5},
    "sanity steps": {"epochs": 2, "num_sanity_val_steps": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_thresholds_are_those_of_the_weights_that_remain(official, sample_data, tmp_path, way) -> None:
    followed = way == "early stopping"
    # where weights are averaged the encoder computes in float32, whatever is best for this machine
    precision = "float32" if "averaged" in way else "auto"
    evaluator = validation_metric() if followed else True
    model = tiny_model(official, learning_rate=RATE, evaluator=evaluator, encoder_precision=precision)
    run = engine(tmp_path, **copy.deepcopy(WAYS[way]))
    run.train(model, datamodule=sample_datamodule(sample_data))
    assert_agree(run, model, sample_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("followed", [False, True])
def test_a_killed_run_that_is_resumed(official, sample_data, tmp_path, monkeypatch, followed) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 0)
    options = {"learning_rate": RATE}
    whole = tiny_model(official, **options)
    engine(tmp_path / "whole", 4).fit(whole, datamodule=sample_datamodule(sample_data))
    cut = engine(tmp_path / "cut", 4, callbacks=[StopAt(5, error=RuntimeError)] if followed else [])
    model = tiny_model(official, **options)
    optimizer_step = model.optimizer_step
    model.optimizer_step = lambda *args, **kwargs: 1 / (model.global_step < 5) and optimizer_step(*args, **kwargs)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        cut.fit(model, datamodule=sample_datamodule(sample_data))
    killed = MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path / "cut"))
    found = describe_thresholds(killed.post_processor)
    assert (
        found["image_threshold"] is None
        if not followed
        else found == right_thresholds(killed, sample_data, tmp_path / "killed")
    )
    model, run = tiny_model(official, **options), engine(tmp_path / "resumed", 4)
    run.train(model, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint_of(tmp_path / "cut"))
    assert all(torch.equal(learnt(model)[name], value) for name, value in learnt(whole).items())
    assert describe_thresholds(model.post_processor) == describe_thresholds(whole.post_processor)
    assert_agree(run, model, sample_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [2, 5], ids=["resumed as it was", "extended"])
def test_a_finished_run_that_is_resumed(official, sample_data, tmp_path, epochs) -> None:
    whole = tiny_model(official, learning_rate=RATE)
    engine(tmp_path / "whole", epochs).fit(whole, datamodule=sample_datamodule(sample_data))
    first = tiny_model(official, learning_rate=RATE)
    engine(tmp_path, 2).train(first, datamodule=sample_datamodule(sample_data))
    model, run = tiny_model(official, learning_rate=RATE), engine(tmp_path, epochs)
    run.train(model, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint_of(tmp_path))
    assert all(torch.equal(learnt(model)[name], value) for name, value in learnt(whole).items())
    assert describe_thresholds(model.post_processor) == describe_thresholds(whole.post_processor)
    restored = MediCLIP.load_from_checkpoint(tmp_path / "MediCLIP/MedicalFolder/latest/weights/lightning/model.ckpt")
    assert restored.hash_learnt() == whole.hash_learnt()
    if epochs > 2:
        assert_agree(run, model, sample_data, tmp_path)


@pytest.mark.slow
def test_a_finished_run_without_thresholds_is_calibrated_when_resumed(official, sample_data, tmp_path) -> None:
    uncalibrated = tiny_model(official)
    engine(tmp_path / "first", 2, limit_val_batches=0).fit(uncalibrated, datamodule=sample_datamodule(sample_data))
    model = tiny_model(official)
    engine(tmp_path / "second", 2).fit(
        model, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint_of(tmp_path / "first")
    )
    assert describe_thresholds(model.post_processor) == right_thresholds(model, sample_data, tmp_path)
    restored = MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path / "second"))
    assert describe_thresholds(restored.post_processor) == describe_thresholds(model.post_processor)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "raised"), [(KeyboardInterrupt, SystemExit), (RuntimeError, RuntimeError)])
def test_an_interrupted_fit_leaves_a_trainer_that_validates_and_fits(
    official, sample_data, tmp_path, error, raised, capsys
) -> None:
    stop = StopAt(3, error)
    model, datamodule = tiny_model(official, learning_rate=RATE), sample_datamodule(sample_data)
    run = engine(tmp_path, 3, callbacks=[stop])
    run.validate(model, datamodule=datamodule)  # these thresholds are soon those of other weights
    with pytest.raises(raised):
        run.fit(model, datamodule=datamodule)
    assert describe_thresholds(model.post_processor)["image_threshold"] is None
    run.validate(model, datamodule=datamodule)
    assert describe_thresholds(model.post_processor) == right_thresholds(model, sample_data, tmp_path)
    stop.step = -1
    run.fit(model, datamodule=datamodule)
    assert model.trainer.current_epoch == 3
    assert describe_thresholds(model.post_processor) == right_thresholds(model, sample_data, tmp_path)
    assert model.is_calibrated


@pytest.mark.slow
def test_every_epoch_is_validated_when_somebody_reads_the_metric(official, sample_data, tmp_path) -> None:
    seen: list[int] = []
    metric = Evaluator(val_metrics=[AUROC(fields=["pred_score", "gt_label"], prefix="val_")])
    best = ModelCheckpoint(dirpath=tmp_path, filename="best", monitor="val_AUROC", mode="min", save_top_k=1)
    model = tiny_model(official, learning_rate=RATE, evaluator=metric)
    validation_step = model.validation_step
    model.validation_step = lambda *args, **kwargs: seen.append(model.current_epoch) or validation_step(*args, **kwargs)
    run = engine(tmp_path, 4, callbacks=[best])
    run.fit(model, datamodule=sample_datamodule(sample_data))
    assert sorted(set(seen)) == [0, 1, 2, 3]
    restored = MediCLIP.load_from_checkpoint(best.best_model_path)
    assert describe_thresholds(restored.post_processor) == right_thresholds(restored, sample_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("weights_only", [False, True])
def test_checkpoints_of_a_running_average_hold_its_thresholds_or_none(
    official, sample_data, tmp_path, weights_only
) -> None:
    each = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1, save_weights_only=weights_only)
    callbacks = [EMAWeightAveraging(decay=0.8), each]
    model = tiny_model(official, learning_rate=RATE, encoder_precision="float32")
    engine(tmp_path, 3, callbacks=callbacks).fit(model, datamodule=sample_datamodule(sample_data))
    for path in tmp_path.glob("epoch=*.ckpt"):
        restored = MediCLIP.load_from_checkpoint(path, map_location="cpu").eval()
        found = describe_thresholds(restored.post_processor)
        expected = right_thresholds(restored, sample_data, tmp_path)
        # weights alone are those of the last step, and those that were validated are the average
        assert found["image_threshold"] == (None if weights_only else expected["image_threshold"])
        images = torch.rand(1, 3, 84, 84)
        computed = restored(images).anomaly_map
        restored.train().eval()  # computes the prompt features from the prompts
        assert torch.equal(restored(images).anomaly_map, computed)
