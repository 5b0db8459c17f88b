# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Precision of the frozen encoder: what the option changes, and what it leaves alone."""

import logging
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine
from lightning import Trainer
from torchvision.transforms.v2 import Resize

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers
from anomalib_mediclip.models.components import frozen_encoder
from tests.helpers.official import IMAGE_SIZE, LAYERS, OfficialRun


class Spy:
    """Notes the type of what the first block of the vision tower, the loss and the learnt weights see."""

    def __init__(self, model: MediCLIP) -> None:
        self.encoder: set[torch.dtype] = set()
        self.maps: set[torch.dtype] = set()
        self.learnt: set[torch.dtype] = set()
        block = model.model.vision_encoder.tower.transformer.resblocks[0]
        block.register_forward_pre_hook(lambda module, inputs: self.encoder.add(module.mlp.c_fc.weight.dtype))
        model.loss.register_forward_pre_hook(lambda module, inputs: self._see(model, inputs))

    def _see(self, model: MediCLIP, inputs: tuple[torch.Tensor, ...]) -> None:
        self.maps.update(tensor.dtype for tensor in inputs)
        self.learnt.update(parameter.dtype for parameter in model.parameters() if parameter.requires_grad)


def tiny_model(official: OfficialRun, **options) -> MediCLIP:
    return MediCLIP(official.encoder, layers=LAYERS, image_size=IMAGE_SIZE, visualizer=False, **options)


def fitted(model: MediCLIP, root: Path, folder: Path, **options) -> Engine:
    run = Engine(
        max_epochs=1,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    run.fit(model, datamodule=MedicalFolder(root, k_shot=4))
    return run


@pytest.fixture
def with_bfloat16(monkeypatch):
    monkeypatch.setattr(frozen_encoder, "native_bfloat16", lambda device: True)


@pytest.fixture
def without_bfloat16(monkeypatch):
    monkeypatch.setattr(frozen_encoder, "native_bfloat16", lambda device: False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, torch.bfloat16),
        ({"encoder_precision": "bfloat16"}, torch.bfloat16),
        ({"encoder_precision": "float32"}, torch.float32),
    ],
)
def test_encoder_in_the_precision_asked_for_and_the_rest_in_float32(
    official, sample_data, tmp_path, with_bfloat16, options, expected
) -> None:
    model = tiny_model(official, **options)
    spy = Spy(model)
    fitted(model, sample_data, tmp_path)
    assert spy.encoder == {expected}
    assert spy.maps == spy.learnt == {torch.float32}


def test_float32_where_bfloat16_would_be_emulated_unless_told(
    official, sample_data, tmp_path, without_bfloat16
) -> None:
    for options, expected in (({}, torch.float32), ({"encoder_precision": "bfloat16"}, torch.bfloat16)):
        model = tiny_model(official, **options)
        spy = Spy(model)
        fitted(model, sample_data, tmp_path)
        assert spy.encoder == {expected}


def test_encoders_of_timm_stay_in_float32_unless_told(sample_data, tmp_path, with_bfloat16) -> None:
    for options, expected in (({}, torch.float32), ({"encoder_precision": "bfloat16"}, torch.bfloat16)):
        model = MediCLIP(
            "timm/resnet18", None, layers=[2], image_size=(32, 32), prompt="prototype", visualizer=False, **options
        )
        seen: set[torch.dtype] = set()
        model.model.vision_encoder.tower.register_forward_pre_hook(
            lambda module, inputs, seen=seen: seen.add(inputs[0].dtype)
        )
        fitted(model, sample_data, tmp_path)
        assert seen == {expected}


def test_the_device_of_the_run_decides_and_not_what_else_the_machine_has(
    official, sample_data, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(frozen_encoder, "native_bfloat16", lambda device: device == "cuda")
    model = tiny_model(official)
    spy = Spy(model)
    fitted(model, sample_data, tmp_path)
    assert spy.encoder == {torch.float32}


def test_a_plain_trainer_of_lightning_gets_the_same_precision(official, sample_data, tmp_path, with_bfloat16) -> None:
    model = tiny_model(official)
    spy = Spy(model)
    trainer = Trainer(
        max_epochs=1, default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False, logger=False
    )
    trainer.fit(model, datamodule=MedicalFolder(sample_data, k_shot=4, train_augmentations=Resize(IMAGE_SIZE)))
    assert spy.encoder == {torch.bfloat16}


def test_an_unknown_precision_is_named(official, sample_data, tmp_path) -> None:
    with pytest.raises(ValueError, match="encoder_precision='half': use 'auto', 'float32' or 'bfloat16'"):
        fitted(tiny_model(official, encoder_precision="half"), sample_data, tmp_path)


def test_it_is_said_once(official, sample_data, tmp_path, with_bfloat16, caplog) -> None:
    model = tiny_model(official)
    with caplog.at_level(logging.INFO):
        run = fitted(model, sample_data, tmp_path)
        run.test(model, datamodule=MedicalFolder(sample_data, k_shot=4))
    assert caplog.text.count("The frozen encoder computes in bfloat16") == 1


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_a_precision_that_would_cast_what_is_learnt_is_refused(official, sample_data, tmp_path, precision) -> None:
    with pytest.raises(ValueError, match=rf"precision {precision} would cast .*--model.encoder_precision bfloat16"):
        fitted(tiny_model(official), sample_data, tmp_path, precision=precision)


def test_same_seed_trains_the_same_weights_and_hashes_the_float32_encoder(
    official, sample_data, tmp_path, with_bfloat16
) -> None:
    models = [tiny_model(official) for _ in range(2)]
    for index, model in enumerate(models):
        fitted(model, sample_data, tmp_path / str(index))
    first, second = (model.model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    checkpoint = torch.load(next((tmp_path / "0").rglob("model.ckpt")), weights_only=True)
    assert checkpoint["frozen_encoder"]["hash"] == tiny_model(official).encoder_hash
    assert checkpoint["frozen_encoder"]["hash"] == models[0].hash_encoder()


def test_a_checkpoint_goes_between_precisions(official, sample_data, tmp_path, with_bfloat16) -> None:
    fitted(tiny_model(official), sample_data, tmp_path)
    loaded = MediCLIP.load_from_checkpoint(next(tmp_path.rglob("model.ckpt")), encoder_precision="float32")
    run = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    assert run.test(loaded, datamodule=MedicalFolder(sample_data, k_shot=4))


@pytest.mark.slow
def test_exports_hold_the_float32_encoder_even_after_a_run_that_broke(official, sample_data, tmp_path) -> None:
    import onnxruntime

    untouched = tiny_model(official)
    model = tiny_model(official, encoder_precision="bfloat16")
    fitted(model, sample_data, tmp_path)
    model._cast_encoder(True)  # as an interrupted run leaves it
    saved = torch.load(model.to_torch(tmp_path), weights_only=False)["model"].model
    expected = untouched.model.vision_encoder.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in saved.vision_encoder.state_dict().items())
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path), providers=["CPUExecutionProvider"])
    images = torch.rand(1, 3, *IMAGE_SIZE)
    with torch.no_grad(), model.float32_encoder():
        in_float32 = model.eval()(images).anomaly_map
    exported = torch.from_numpy(session.run(["anomaly_map"], {"input": images.numpy()})[0])
    torch.testing.assert_close(exported, in_float32, atol=1e-5, rtol=0)


def test_maps_and_context_gradients_stay_close_to_those_of_float32(official) -> None:
    images = official.tensors["input.image"]
    model = official.model().eval()
    with torch.no_grad():
        exact = model(images).anomaly_map
    model.train()
    model.prompts()[1].sum().backward()
    gradient = model.prompts.context.grad.clone()
    model.prompts.context.grad = None
    Bfloat16Towers([model.vision_encoder.tower, model.prompts.text_encoder.tower])
    model.prompts()[1].sum().backward()
    difference = (model.prompts.context.grad - gradient).norm() / gradient.norm()
    assert 0 < difference < 0.05
    model.eval()
    with torch.no_grad():
        assert 0 < (model(images).anomaly_map - exact).abs().max() < 0.1


def test_packing_prompts_leaves_gradients_as_they_were(official) -> None:
    packed, padded = official.model().prompts, official.model(causal_text=False).prompts
    padded.text_encoder.attention_mask = torch.full((77, 77), float("-inf")).triu_(1)
    for prompts in (packed, padded):
        prompts()[0].sum().backward()
    torch.testing.assert_close(packed.context.grad, padded.context.grad, atol=1e-5, rtol=1e-4)
    assert packed.packing.tokens.numel() < 0.9 * packed.embeddings.shape[0] * packed.embeddings.shape[1]


def test_the_vision_tower_builds_no_graph_and_runs_no_block_after_the_last_tapped(official) -> None:
    model = official.model()
    features = model.vision_encoder(official.tensors["input.image"])
    assert not any(feature.requires_grad for feature in features)
    shallow = MediCLIP(official.encoder, layers=[1, 2], image_size=IMAGE_SIZE)
    assert len(shallow.model.vision_encoder.tower.transformer.resblocks) == 2
