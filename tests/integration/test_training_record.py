# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Records of tests: they name what they belong to, and lie beside no other checkpoint."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from anomalib.callbacks import ModelCheckpoint

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.export.model_card import model_card
from anomalib_mediclip.models.components.training_record import record_file
from tests.integration.test_training import engine, sample_datamodule, tiny_model

pytestmark = pytest.mark.slow


def record_of(run: Any) -> dict[str, Any]:
    return json.loads(record_file(run.best_model_path).read_text())


def test_a_record_names_weights_data_images_and_thresholds(official, sample_data, tmp_path) -> None:
    model, datamodule, run = tiny_model(official), sample_datamodule(sample_data), engine(tmp_path)
    (metrics,) = run.train(model, datamodule=datamodule)
    record = record_of(run)
    assert record["weights"] == model.hash_learnt()
    assert record["data"] == datamodule.describe()
    assert record["images"] == len(datamodule.test_data)
    assert record["thresholds"]["image_threshold"] == model.post_processor.image_threshold.item()
    assert record["metrics"] == metrics
    restored = MediCLIP.load_from_checkpoint(run.best_model_path)
    assert restored.training_record["test"] == record
    assert restored.training_record["weights"] == record["weights"]


def test_expected_false_alarms_are_told_and_recorded(official, sample_data, tmp_path, caplog) -> None:
    model, run = tiny_model(official), engine(tmp_path, 1)
    with caplog.at_level(logging.INFO):
        run.fit(model, datamodule=sample_datamodule(sample_data))
    expected = model.post_processor.expected_false_alarms
    assert 0 < expected < 1
    assert f"About {100 * expected:.0f} % of normal images" in caplog.text
    restored = MediCLIP.load_from_checkpoint(run.trainer.checkpoint_callback.best_model_path)
    assert restored.training_record["expected_false_alarms"] == expected
    card = model_card(restored, tmp_path / "model.onnx", "ONNX")
    assert f"| normal images expected to be called anomalous | {100 * expected:.0f} % |" in card


def test_a_test_of_other_images_or_of_a_part_of_them_is_not_recorded(official, sample_data, tmp_path, caplog) -> None:
    root = shutil.copytree(sample_data, tmp_path / "data")
    shutil.copytree(root / "train" / "normal", root / "other")
    model, run = tiny_model(official), engine(tmp_path)
    run.train(model, datamodule=sample_datamodule(root))
    before = record_of(run)
    with caplog.at_level(logging.INFO):
        run.test(model, datamodule=sample_datamodule(root, normal_test_dir="other"))
    assert record_of(run) == before
    assert "tested on other data than" in caplog.text
    run.trainer.limit_test_batches = 1
    with caplog.at_level(logging.INFO):
        run.test(model, datamodule=sample_datamodule(root, eval_batch_size=8))
    assert record_of(run) == before
    assert "only a part of the test set" in caplog.text


def test_a_test_of_the_last_weights_is_not_recorded_beside_the_best(official, sample_data, tmp_path) -> None:
    # the first epoch has the highest loss
    best = ModelCheckpoint(
        dirpath=tmp_path, filename="best", monitor="train_loss", mode="max", save_on_train_epoch_end=True
    )
    model = tiny_model(official)
    run = engine(tmp_path, 4, callbacks=[best])
    run.fit(model, datamodule=sample_datamodule(sample_data))
    restored = MediCLIP.load_from_checkpoint(best.best_model_path)
    assert restored.hash_learnt() != model.hash_learnt()
    run.trainer.test(model, datamodule=sample_datamodule(sample_data))
    assert not record_file(best.best_model_path).exists()


def test_a_metric_without_a_value_is_null(official, sample_data, tmp_path) -> None:
    data = MedicalFolder(sample_data, k_shot=4, mask_dir=None)
    data.setup()
    data.test_data.samples = data.test_data.samples[data.test_data.samples["label_index"] == 1].reset_index(drop=True)
    run = engine(tmp_path, 1)
    run.train(tiny_model(official), datamodule=data)
    text = record_file(run.best_model_path).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"]["image_AUROC"] is None
    card = MediCLIP.load_from_checkpoint(run.best_model_path).to_torch(tmp_path).with_name("MODEL_CARD.md").read_text()
    assert "| image_AUROC | undefined" in card


def test_a_damaged_record_is_named_and_left_out(official, sample_data, tmp_path, caplog) -> None:
    run = engine(tmp_path, 1)
    run.train(tiny_model(official), datamodule=sample_datamodule(sample_data))
    file = record_file(run.best_model_path)
    file.write_text(file.read_text()[:40])
    assert MediCLIP.load_from_checkpoint(run.best_model_path).training_record["test"] == {}
    assert f"{Path(file)} cannot be read" in caplog.text
