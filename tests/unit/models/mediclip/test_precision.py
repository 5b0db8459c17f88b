# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The encoder's precision: what Lightning's option means, what it changes, and what it leaves alone."""

import logging
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.encoders import bfloat16
from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers
from anomalib_mediclip.models.mediclip import lightning_model
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
    monkeypatch.setattr(lightning_model, "native_bfloat16", lambda device: True)


@pytest.fixture
def without_bfloat16(monkeypatch):
    monkeypatch.setattr(lightning_model, "native_bfloat16", lambda device: False)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [({}, torch.bfloat16), ({"precision": "bf16-true"}, torch.bfloat16), ({"precision": "32-true"}, torch.float32)],
)
def test_encoder_in_the_precision_asked_for_and_the_rest_in_float32(
    official, sample_data, tmp_path, with_bfloat16, precision, expected
) -> None:
    model = tiny_model(official)
    spy = Spy(model)
    fitted(model, sample_data, tmp_path, **precision)
    assert spy.encoder == {expected}
    assert spy.maps == spy.learnt == {torch.float32}


def test_float32_where_bfloat16_would_be_emulated(official, sample_data, tmp_path, without_bfloat16) -> None:
    model = tiny_model(official)
    spy = Spy(model)
    fitted(model, sample_data, tmp_path)
    assert spy.encoder == {torch.float32}


def test_encoders_of_timm_stay_in_float32_unless_told(with_bfloat16) -> None:
    model = MediCLIP("timm/resnet18", None, layers=[2, 3], prompt="prototype")
    assert "precision" not in model.default_trainer_arguments({"accelerator": "cpu"})


def test_the_accelerator_decides_and_not_what_else_the_machine_has(official, monkeypatch) -> None:
    monkeypatch.setattr(lightning_model, "native_bfloat16", lambda device: device == "cuda")
    monkeypatch.setattr(bfloat16.torch.cuda, "is_available", lambda: True)
    model = tiny_model(official)
    assert "precision" not in model.default_trainer_arguments({"accelerator": "cpu"})
    assert model.default_trainer_arguments({"accelerator": "auto"})["precision"] == "bf16-true"


def test_it_is_said_once(official, sample_data, tmp_path, with_bfloat16, caplog) -> None:
    model = tiny_model(official)
    with caplog.at_level(logging.INFO):
        run = fitted(model, sample_data, tmp_path)
        run.test(model, datamodule=MedicalFolder(sample_data, k_shot=4))
    assert caplog.text.count("The frozen encoder computes in bfloat16") == 1


def test_sixteen_true_is_refused(official, sample_data, tmp_path) -> None:
    with pytest.raises(ValueError, match="use bf16-true"):
        fitted(tiny_model(official), sample_data, tmp_path, precision="16-true")


def test_same_seed_trains_the_same_weights_and_hashes_the_float32_encoder(
    official, sample_data, tmp_path, with_bfloat16
) -> None:
    models = [tiny_model(official) for _ in range(2)]
    for index, model in enumerate(models):
        fitted(model, sample_data, tmp_path / str(index))
    first, second = (model.model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    checkpoint = torch.load(next((tmp_path / "0").rglob("model.ckpt")), weights_only=True)
    assert checkpoint["frozen_encoder"]["hash"] == tiny_model(official).model.encoder_hash
    assert checkpoint["frozen_encoder"]["hash"] == models[0].model._hash_encoder()


def test_a_checkpoint_goes_between_precisions(official, sample_data, tmp_path, with_bfloat16) -> None:
    fitted(tiny_model(official), sample_data, tmp_path)
    loaded = MediCLIP.load_from_checkpoint(next(tmp_path.rglob("model.ckpt")))
    run = Engine(default_root_dir=tmp_path, accelerator="cpu", precision="32-true", enable_progress_bar=False)
    assert run.test(loaded, datamodule=MedicalFolder(sample_data, k_shot=4))


@pytest.mark.slow
def test_exports_hold_the_float32_encoder_even_after_a_run_that_broke(official, sample_data, tmp_path) -> None:
    import onnxruntime

    untouched = tiny_model(official)
    model = tiny_model(official)
    fitted(model, sample_data, tmp_path, precision="bf16-true")
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
    Bfloat16Towers(model.frozen_towers)
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
