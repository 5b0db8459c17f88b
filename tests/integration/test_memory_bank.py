# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A model with a memory bank: trained, interrupted, saved, averaged and exported."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.deploy import CompressionType, OpenVINOInferencer
from lightning import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from scipy.stats import spearmanr
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.evaluation import CalibrationPostProcessor
from anomalib_mediclip.evaluation.calibration import DistanceCalibrationPostProcessor, LogitCalibrationPostProcessor
from anomalib_mediclip.export import ExportedModel, load_artifact
from anomalib_mediclip.io import read_image
from tests.integration.test_training import assert_same, checkpoint_of, engine, learnt, sample_datamodule, tiny_model
from tests.integration.test_ways_to_end_a_fit import RATE, WAYS, assert_agree

JOINED = {"memory_bank": True, "top_fraction": 0.05}
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def joined_model(official, **options) -> MediCLIP:
    return tiny_model(official, **JOINED | options)


def fitted(model: MediCLIP, root: Path, folder: Path, epochs: int = 2, checkpoint: Path | None = None, **options):
    data = options.pop("data", {})
    engine(folder, epochs, **options).fit(model, datamodule=sample_datamodule(root, **data), ckpt_path=checkpoint)
    return model.eval()


def moments_anew(model: MediCLIP, root: Path) -> torch.Tensor:
    """Compute the moments of the learnt map from scratch, from the images of the support set."""
    datamodule = sample_datamodule(root)
    datamodule.setup()
    images = torch.stack([torch.as_tensor(item.image) for item in datamodule.train_data])
    images = model.pre_processor.transform(images).clamp(0, 1)
    with torch.no_grad():
        features = model.model.vision_encoder(images)
    return model.model.map_moments_of({}, [features], model.image_size)


@pytest.fixture(scope="module")
def folder(official, sample_data, tmp_path_factory) -> Path:
    """Train a model, and return its folder."""
    folder = tmp_path_factory.mktemp("joined")
    fitted(joined_model(official), sample_data, folder, epochs=4)
    return folder


@pytest.fixture
def model(folder: Path) -> MediCLIP:
    return MediCLIP.load_from_checkpoint(checkpoint_of(folder)).eval()


def test_a_checkpoint_brings_the_bank_and_the_moments(official, sample_data, tmp_path, model) -> None:
    whole = fitted(joined_model(official), sample_data, tmp_path, epochs=4)
    images = torch.rand(2, 3, 84, 84)
    assert torch.equal(whole(images).anomaly_map, model(images).anomaly_map)
    assert len(model.model.memory_bank.patches) == 8 * 36
    torch.testing.assert_close(model.model.map_moments, moments_anew(model, sample_data), rtol=1e-4, atol=1e-5)
    assert isinstance(model.post_processor, LogitCalibrationPostProcessor)
    assert model.is_calibrated


def test_a_resumed_run_ends_with_the_same_bits(official, sample_data, tmp_path, model) -> None:
    fitted(joined_model(official), sample_data, tmp_path / "cut")
    cut = checkpoint_of(tmp_path / "cut")
    resumed = fitted(joined_model(official), sample_data, tmp_path / "on", epochs=4, checkpoint=cut)
    assert_same(learnt(model), learnt(resumed))
    assert torch.equal(model.model.map_moments, resumed.model.map_moments)
    assert torch.equal(model.model.memory_bank.patches, resumed.model.memory_bank.patches)


def test_without_validation_the_moments_are_those_of_the_last_weights(official, sample_data, tmp_path) -> None:
    model = fitted(joined_model(official), sample_data, tmp_path, limit_val_batches=0)
    restored = MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path)).eval()
    expected = moments_anew(model, sample_data)
    for found in (model, restored):
        torch.testing.assert_close(found.model.map_moments, expected, rtol=1e-4, atol=1e-5)


def test_averaged_weights_are_saved_with_their_own_moments(official, sample_data, tmp_path) -> None:
    callbacks = [EMAWeightAveraging(decay=0.5)]
    options = {"learning_rate": RATE, "encoder_precision": "float32"}
    fitted(joined_model(official, **options), sample_data, tmp_path, callbacks=callbacks, limit_val_batches=0)
    restored = MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path)).eval()
    expected = moments_anew(restored, sample_data)
    torch.testing.assert_close(restored.model.map_moments, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["last epoch", "max_time", "weights averaged all the time", "sanity steps"])
def test_thresholds_belong_to_the_joined_map(official, sample_data, tmp_path, way) -> None:
    model = joined_model(official, learning_rate=RATE, encoder_precision="float32")
    run = engine(tmp_path, **copy.deepcopy(WAYS[way]))
    run.train(model, datamodule=sample_datamodule(sample_data))
    assert_agree(run, model, sample_data, tmp_path)


def test_the_bank_holds_augmented_images(official, sample_data, tmp_path) -> None:
    augmented = {"train_augmentations": RandomHorizontalFlip(p=1)}
    plain = fitted(joined_model(official), sample_data, tmp_path / "plain")
    flipped = fitted(joined_model(official), sample_data, tmp_path / "flipped", data=augmented)
    assert not torch.equal(plain.model.memory_bank.patches, flipped.model.memory_bank.patches)
    assert flipped.model.memory_bank.patches.shape == plain.model.memory_bank.patches.shape


def test_fresh_paintings_go_with_a_bank(official, sample_data, tmp_path, model) -> None:
    fresh = fitted(joined_model(official, views=None), sample_data, tmp_path)
    assert torch.equal(fresh.model.memory_bank.patches, model.model.memory_bank.patches)


def test_of_a_large_support_set_every_second_image_is_remembered(official, sample_data, tmp_path, monkeypatch, model):
    monkeypatch.setattr("anomalib_mediclip.models.mediclip.lightning_model.LARGEST_SUPPORT", 4)
    half = fitted(joined_model(official), sample_data, tmp_path)
    every = model.model.memory_bank.patches.unflatten(0, (8, -1))
    assert torch.equal(half.model.memory_bank.patches, every[::2].flatten(0, 1))


def test_support_images_are_calibrated_against_the_others(official, sample_data, tmp_path, model) -> None:
    seen: list[torch.Tensor] = []
    run = engine(tmp_path, callbacks=[Look(seen)])
    run.validate(model, datamodule=sample_datamodule(sample_data))
    datamodule = run.trainer.datamodule
    images = model.pre_processor.transform(torch.stack([torch.as_tensor(i.image) for i in datamodule.train_data]))
    with torch.no_grad():
        nothing_unusual = model.model(images.clamp(0, 1)).pred_score
    assert len(seen) == 8
    assert torch.stack(seen).mean() > nothing_unusual.mean() + 1


class Look(Callback):
    """Keeps the raw scores of the normal images of a validation."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        self._seen = seen

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self._seen.extend(outputs.pred_score[~outputs.gt_label.bool()])


@pytest.mark.parametrize("k_shot", [1, 2])
def test_one_image_and_two_are_enough(official, sample_data, tmp_path, k_shot) -> None:
    model = fitted(joined_model(official), sample_data, tmp_path, data={"k_shot": k_shot})
    predictions = model(torch.rand(2, 3, 84, 84))
    assert predictions.anomaly_map.isfinite().all()
    assert ((predictions.anomaly_map > 0) & (predictions.anomaly_map < 1)).any()


def test_a_sensitivity_holds_for_the_scores_that_the_model_has(official) -> None:
    processor = joined_model(official, post_processor=CalibrationPostProcessor(image_sensitivity=0.9)).post_processor
    assert isinstance(processor, LogitCalibrationPostProcessor)
    assert (processor.image_sensitivity, processor.pixel_sensitivity) == (0.9, 0.5)
    with pytest.raises(TypeError, match="takes scores that are a distance, and those of MediCLIP are a logit"):
        joined_model(official, post_processor=DistanceCalibrationPostProcessor())


def test_a_model_without_a_bank_does_not_take_the_checkpoint(official, folder) -> None:
    with pytest.raises(ValueError, match=r"Give --model\.memory_bank True"):
        tiny_model(official).restore(checkpoint_of(folder))


def test_exports_agree_with_the_model(model, sample_data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # OpenVINOInferencer writes its cache where it is started
    torch_file, onnx_file, openvino_file = (
        export(tmp_path) for export in (model.to_torch, model.to_onnx, model.to_openvino)
    )
    ways = {
        "safetensors": lambda image: load_artifact(torch_file.parent)(image[None]),
        "ONNX Runtime": lambda image: ExportedModel(onnx_file)(image[None].numpy()),
        "OpenVINOInferencer": OpenVINOInferencer(openvino_file, device="CPU", config=F32).predict,
    }
    paths = sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]
    for image in (read_image(paths[0]), read_image(paths[1])[:, :60, :90], read_image(paths[2])[:, ::2]):
        with torch.no_grad():
            expected = model(image[None])
        for name, predict in ways.items():
            found = predict(image)
            found = found[0] if isinstance(found, list) else found
            for field in ("anomaly_map", "pred_score"):
                value = found[field] if isinstance(found, dict) else getattr(found, field)
                wanted = getattr(expected, field)
                np.testing.assert_allclose(
                    np.asarray(value).reshape(wanted.shape), wanted, atol=1e-3, err_msg=f"{name}, {field}"
                )


@pytest.mark.slow
def test_int8_keeps_the_order_of_images(model, sample_data, tmp_path) -> None:
    datamodule = sample_datamodule(sample_data)
    file = model.to_openvino(tmp_path, compression_type=CompressionType.INT8_PTQ, datamodule=datamodule)
    exported = ExportedModel(file)
    images = [read_image(path) for path in sorted((sample_data / "test").rglob("*.png"))]
    with torch.no_grad():
        expected = [model(image[None]).pred_score.item() for image in images]
    found = [np.asarray(exported(image[None].numpy())["pred_score"]).item() for image in images]
    assert spearmanr(expected, found).statistic > 0.9
