# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Engines, loaders and checkpoint files as users handle them."""

import copy
import logging
import resource
import signal
from pathlib import Path

import pytest
import torch
from anomalib.metrics import AUPRO, AUROC, Evaluator
from torch.utils.data import DataLoader, Subset

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.evaluation import CalibrationPostProcessor, MedicalEvaluator
from tests.integration.test_training import assert_same, checkpoint_of, engine, learnt, sample_datamodule, tiny_model


def test_a_part_of_a_data_set_can_be_trained_on(official, sample_data, tmp_path) -> None:
    data = sample_datamodule(sample_data)
    data.setup()
    loader = DataLoader(Subset(data.train_data, [1, 3, 4]), batch_size=2, collate_fn=data.train_data.collate_fn)
    model = tiny_model(official, views=1)
    names: list[str] = []
    generate = model.anomaly_generator.forward
    model.anomaly_generator.forward = lambda image, given, epoch: names.extend(given) or generate(image, given, epoch)
    engine(tmp_path, 1).fit(model, train_dataloaders=loader)
    assert sorted(names) == sorted(data.support_set[index].name for index in (1, 3, 4))


def test_images_without_a_path_are_refused(official, sample_data, tmp_path) -> None:
    data = sample_datamodule(sample_data)
    data.setup()
    items = [copy.copy(data.train_data[index]) for index in range(3)]
    for item in items:
        item.image_path = None
    loader = DataLoader(items, batch_size=2, collate_fn=data.train_data.collate_fn)
    with pytest.raises(ValueError, match="has no image_path"):
        engine(tmp_path, 1).fit(tiny_model(official), train_dataloaders=loader)


def test_a_bare_trainer_trains_and_calibrates(official, sample_data, tmp_path) -> None:
    model = tiny_model(official)
    bare = {"enable_progress_bar": None, "enable_model_summary": None, "barebones": True}
    (metrics,) = engine(tmp_path, 1, **bare).train(model, datamodule=sample_datamodule(sample_data))
    assert 0 < metrics["image_AUROC"] < 1
    assert model.is_calibrated


def test_an_engine_that_has_trained_a_model_refuses_another(official, sample_data, tmp_path) -> None:
    run, data = engine(tmp_path, 1), sample_datamodule(sample_data)
    first, second = tiny_model(official), tiny_model(official)
    run.fit(first, datamodule=data)
    with pytest.raises(ValueError, match="Make a new Engine for each model"):
        run.train(second, datamodule=data)
    run.test(second, datamodule=data)  # which is no training
    run.fit(first, datamodule=data)


def test_a_training_keeps_the_pictures_of_its_test(official, sample_data, tmp_path) -> None:
    model, data = tiny_model(official, visualizer=True), sample_datamodule(sample_data)
    run = engine(tmp_path, 1)
    run.train(model, datamodule=data)
    folder = tmp_path / "MediCLIP" / "MedicalFolder"
    pictures = {path: path.stat().st_mtime_ns for path in (folder / "v0" / "images").rglob("*.png")}
    assert len(pictures) == 40
    run.test(model, datamodule=data)
    engine(tmp_path).test(model, datamodule=data, ckpt_path=folder / "latest" / "weights" / "lightning" / "model.ckpt")
    assert {path: path.stat().st_mtime_ns for path in (folder / "v0" / "images").rglob("*.png")} == pictures
    for version in ("v0", "v1"):
        assert len(list((folder / "test" / version / "images").rglob("*.png"))) == 40
    run.fit(model, datamodule=data)
    run.test(model, datamodule=data)  # that of the second training
    assert sorted(path.name for path in (folder / "test").iterdir()) == ["latest", "v0", "v1"]


def test_a_state_without_the_encoder_is_loaded(official, sample_data, tmp_path) -> None:
    trained = tiny_model(official)
    engine(tmp_path, 1).fit(trained, datamodule=sample_datamodule(sample_data))
    model = tiny_model(official)
    model.load_state_dict(torch.load(checkpoint_of(tmp_path), weights_only=True)["state_dict"])
    assert_same(learnt(model), learnt(trained))
    with pytest.raises(RuntimeError, match=r"prompts\.context"):
        model.load_state_dict({})


def test_a_checkpoint_is_loaded_without_post_processor_and_with_another(official, sample_data, tmp_path) -> None:
    engine(tmp_path, 1).fit(tiny_model(official), datamodule=sample_datamodule(sample_data))
    raw = MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path), map_location="cpu", post_processor=False).eval()
    own = CalibrationPostProcessor(image_sensitivity=0.9)
    mine = MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path), map_location="cpu", post_processor=own).eval()
    images = torch.rand(4, 3, 84, 84)
    calibrated = mine.post_processor.normalize(raw(images).pred_score, mine.post_processor.image_threshold)
    assert torch.equal(mine(images).pred_score, calibrated)
    assert mine.post_processor.image_sensitivity == 0.9
    assert mine.post_processor.pixel_sensitivity == 0.5


def test_a_sensitivity_of_the_training_holds_unless_another_is_given(official, sample_data, tmp_path) -> None:
    model = tiny_model(official, post_processor=CalibrationPostProcessor(image_sensitivity=0.7, pixel_sensitivity=0.6))
    engine(tmp_path, 1).fit(model, datamodule=sample_datamodule(sample_data))
    images = sample_datamodule(sample_data)
    mine = tiny_model(official, post_processor=CalibrationPostProcessor(image_sensitivity=0.9))
    engine(tmp_path).test(mine, datamodule=images, ckpt_path=checkpoint_of(tmp_path))
    assert (mine.post_processor.image_sensitivity, mine.post_processor.pixel_sensitivity) == (0.9, 0.6)


def test_misspelt_arguments_are_refused_with_a_hint(official, sample_data, tmp_path) -> None:
    engine(tmp_path, 1).fit(tiny_model(official), datamodule=sample_datamodule(sample_data))
    with pytest.raises(TypeError, match=r"no argument 'learnin_rate': did you mean learning_rate\?"):
        MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path), learnin_rate=1.0)
    MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path), map_location="cpu", learning_rate=1.0)


@pytest.mark.parametrize("length", [0, 100, 20_000])
def test_an_incomplete_checkpoint_is_named(official, sample_data, tmp_path, length) -> None:
    engine(tmp_path, 1).fit(tiny_model(official), datamodule=sample_datamodule(sample_data))
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(checkpoint_of(tmp_path).read_bytes()[:length])
    reason = "it is empty" if not length else "damaged or cut short"
    with pytest.raises(ValueError, match=rf"damaged\.ckpt \({length} bytes\) cannot be read .* {reason}"):
        MediCLIP.load_from_checkpoint(damaged)
    with pytest.raises(ValueError, match=rf"damaged\.ckpt \({length} bytes\) cannot be read .* {reason}"):
        engine(tmp_path).test(tiny_model(official), datamodule=sample_datamodule(sample_data), ckpt_path=damaged)


@pytest.fixture
def full_disk():
    """Let no file grow beyond a limit, as on a disk that is full."""
    old_handler, old_limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old_limit[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_handler)


def test_a_full_disk_leaves_the_checkpoint_that_was_there(official, sample_data, tmp_path, full_disk) -> None:
    model, data, run = tiny_model(official), sample_datamodule(sample_data), engine(tmp_path, 1)
    run.fit(model, datamodule=data)
    written = Path(run.best_model_path)
    before = written.read_bytes()
    full_disk(len(before) // 2)
    with pytest.raises(OSError, match=r"model\.ckpt could not be written .* An earlier file of this name is kept"):
        run.trainer.save_checkpoint(written)
    assert written.read_bytes() == before
    assert [file.name for file in written.parent.iterdir()] == ["model.ckpt"]


def test_a_foreign_evaluator_is_said_to_count_unknown_lesions_as_normal(
    official, tmp_path, sample_data, caplog
) -> None:
    import shutil

    shutil.copytree(sample_data, tmp_path / "data")
    for mask in sorted((tmp_path / "data" / "masks").rglob("*.png"))[:3]:
        mask.unlink()
    pixel = [AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_")]
    data = sample_datamodule(tmp_path / "data")
    with caplog.at_level(logging.WARNING):
        engine(tmp_path).test(tiny_model(official, evaluator=Evaluator(test_metrics=pixel)), datamodule=data)
    assert "3 anomalous test images of MedicalFolder have no mask" in caplog.text
    caplog.clear()
    further = [AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_")]
    model = tiny_model(official, evaluator=MedicalEvaluator(test_metrics=further))
    (metrics,) = engine(tmp_path).test(model, datamodule=data)
    assert "have no mask" not in caplog.text
    assert 0 < metrics["pixel_AUPRO"] < 1
    outlined = MedicalFolder(tmp_path / "data", k_shot=8)
    outlined.setup()
    samples = outlined.test_data.samples
    known = (samples["label_index"] == 0) | samples["mask_path"].map(bool)
    outlined.test_data.samples = samples[known].reset_index(drop=True)
    (expected,) = engine(tmp_path).test(model, datamodule=outlined)
    assert metrics["pixel_AUPRO"] == expected["pixel_AUPRO"]
    assert metrics["pixel_AUROC"] == expected["pixel_AUROC"]
