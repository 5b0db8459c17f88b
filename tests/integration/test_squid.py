# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SQUID through anomalib's Engine."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.models import get_model
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from anomalib_mediclip import SQUID
from anomalib_mediclip.export import ExportedModel, load_artifact
from anomalib_mediclip.host import periodic_checkpoint
from anomalib_mediclip.io import read_image
from anomalib_mediclip.models.squid.lightning_model import batches_of
from tests.integration.test_fitted_module import sample_datamodule, steps
from tests.integration.test_training import assert_same, checkpoint_of

TINY = {"image_size": (64, 64), "width": 4, "slots": 10, "views": 3, "visualizer": False}


def tiny_model(**options) -> SQUID:
    return SQUID(**{**TINY, **options})


def weights(model: SQUID) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


class Watch(Callback):
    """Notes after each batch which learnt parts, and how many slots of the queues, it changed."""

    def __init__(self) -> None:
        self.parts: list[set[str]] = []
        self.slots: list[int] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, *args) -> None:
        self.before = weights(pl_module)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        learnt = {name for name, _ in pl_module.model.named_parameters()}
        after = weights(pl_module)
        self.parts.append({name.split(".")[0] for name in changed(self.before, after) & learnt})
        name = "inpainting.queues.slots"
        self.slots.append(int((self.before[name] != after[name]).any(dim=2).sum()))


class StopAt(Callback):
    """Ends a run without a word at the end of an epoch, before its checkpoint is written."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_anomalib_finds_it_by_its_short_name() -> None:
    assert isinstance(get_model("SQUID", **TINY), SQUID)


def test_it_is_trained_tested_and_calibrated_on_logits(sample_data, tmp_path) -> None:
    model = tiny_model()
    (metrics,) = steps(tmp_path, 3).train(model, datamodule=sample_datamodule(sample_data))
    assert set(metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    images = torch.rand(2, 3, 100, 120)
    restored = SQUID.load_from_checkpoint(checkpoint_of(tmp_path)).eval()
    with torch.no_grad():
        shown = model.eval()(images)
        raw = model.model(model.pre_processor(images))
        assert torch.equal(restored(images).anomaly_map, shown.anomaly_map)
        assert torch.equal(restored(images).pred_score, shown.pred_score)
    torch.testing.assert_close(shown.pred_score, (raw.pred_score - model.post_processor.image_threshold).sigmoid())


@pytest.mark.parametrize("k_shot", [2, 6, 10])  # 1, 2 and 3 batches in an epoch
def test_the_generator_learns_in_every_second_batch_of_the_training(sample_data, tmp_path, k_shot) -> None:
    watch = Watch()
    run = steps(tmp_path, 9, callbacks=[watch], limit_val_batches=0)
    run.fit(tiny_model(), datamodule=sample_datamodule(sample_data, k_shot=k_shot))
    both = {"encoder", "inpainting", "student", "teacher", "discriminator"}
    assert watch.parts == [both, {"discriminator"}] * 3
    assert watch.slots == [4 * 3, 0] * 3  # three views at four positions
    assert run.trainer.global_step == 9


def test_either_optimizer_leaves_the_parameters_of_the_other_without_gradients(sample_data, tmp_path) -> None:
    model, seen = tiny_model(), []
    descend = model._descend

    def watched(optimizer, loss, number, name):
        descend(optimizer, loss, number, name)
        judge = [p.grad for p in model.model.discriminator.parameters()]
        others = [p.grad for n, p in model.model.named_parameters() if not n.startswith("discriminator.")]
        seen.append((name, [None if g is None else g.clone() for g in judge], others))

    model._descend = watched
    steps(tmp_path, 3, limit_val_batches=0).fit(model, datamodule=sample_datamodule(sample_data))
    (first, judge, others), (second, judge_after, others_after), *_ = seen
    assert (first, second) == ("discriminator_loss", "generator_loss")
    assert all(gradient is None for gradient in others)
    assert all(torch.equal(one, other) for one, other in zip(judge, judge_after, strict=True))
    assert all(gradient is not None for gradient in others_after)
    assert all(parameter.requires_grad for parameter in model.model.parameters())


def test_a_step_follows_the_gradient_of_its_own_loss_alone(sample_data, tmp_path) -> None:
    model, names = tiny_model(), []
    descend = model._descend

    def watched(optimizer, loss, number, name):
        parameters = optimizer.param_groups[0]["params"]
        expected = torch.autograd.grad(loss, parameters, retain_graph=True)
        descend(optimizer, loss, number, name)
        assert all(torch.equal(p.grad, gradient) for p, gradient in zip(parameters, expected, strict=True))
        names.append(name)

    model._descend = watched
    steps(tmp_path, 6, limit_val_batches=0).fit(model, datamodule=sample_datamodule(sample_data))
    assert names == ["discriminator_loss", "generator_loss", "discriminator_loss"] * 2


def test_the_learning_rate_falls_along_the_official_cosine(sample_data, tmp_path) -> None:
    for limits in ({"max_steps": 12}, {"max_steps": -1, "max_epochs": 4}):
        watch = Watch()
        run = steps(tmp_path / str(len(limits)), None, callbacks=[watch], limit_val_batches=0, **limits)
        run.fit(tiny_model(learning_rate=0.01), datamodule=sample_datamodule(sample_data, k_shot=8))
        expected = [0.01 * (0.75 + 0.25 * math.cos(math.pi * batch / 12)) for batch in range(8)]
        assert watch.rates == pytest.approx(expected)
        assert run.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.00625)
        assert run.trainer.optimizers[1].param_groups[0]["lr"] == 0.01


def test_batches_are_counted_from_steps() -> None:
    done, batches = 0, 0
    for steps_wanted in range(1, 50):
        while done < steps_wanted:
            done += 1 if batches % 2 else 2
            batches += 1
        assert batches_of(steps_wanted) == batches
    assert batches_of(SQUID.MAX_STEPS) == 17_000


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_killed_run_ends_in_the_bits_of_an_uninterrupted_one(sample_data, tmp_path, monkeypatch, epochs) -> None:
    """Three batches in an epoch: after an odd number of epochs the generator has its turn in the second batch."""
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 0.0)

    def data():
        return sample_datamodule(sample_data, k_shot=10, num_workers=2 * (epochs - 1))

    whole, cut, resumed = tiny_model(), tiny_model(), tiny_model()
    steps(tmp_path / "whole", 18).fit(whole, datamodule=data())
    run = steps(tmp_path / "cut", 18, callbacks=[StopAt(epochs)], limit_val_batches=0)
    with pytest.raises(SystemExit):
        run.fit(cut, datamodule=data())
    checkpoint = checkpoint_of(tmp_path / "cut")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == {1: 5, 2: 9}[epochs]
    torch.manual_seed(5)  # the state of the global generator must not matter
    watch = Watch()
    steps(tmp_path / "resumed", 18, callbacks=[watch]).fit(resumed, datamodule=data(), ckpt_path=checkpoint)
    assert ["encoder" in parts for parts in watch.parts[:2]] == [epochs == 2, epochs == 1]
    assert_same(weights(whole), weights(resumed))
    other = tiny_model(seed=1)
    steps(tmp_path / "other", 18).fit(other, datamodule=data())
    assert not torch.equal(whole.model.student.output.weight, other.model.student.output.weight)


@pytest.fixture(scope="module")
def trained(sample_data, tmp_path_factory) -> SQUID:
    """Return a model whose reconstructions show something: before that, realness differs by rounding alone."""
    model = tiny_model(learning_rate=1e-3)
    steps(tmp_path_factory.mktemp("run"), 60).fit(model, datamodule=sample_datamodule(sample_data))
    return model.eval()


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_exports_agree_on_real_images_and_draw_nothing(trained, sample_data, tmp_path, form) -> None:
    exported = ExportedModel(getattr(trained, f"to_{form}")(tmp_path))
    images = torch.stack([read_image(path) for path in sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]])
    with torch.no_grad():
        expected = trained(images)
    found = exported(images.numpy())
    np.testing.assert_allclose(found["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
    np.testing.assert_allclose(found["pred_score"], expected.pred_score.numpy(), atol=1e-3)
    assert np.array_equal(exported(images.numpy())["anomaly_map"], found["anomaly_map"])
    if form == "onnx":
        assert_holds_no_teacher(trained, next(tmp_path.rglob("*.onnx")))


def assert_holds_no_teacher(model: SQUID, path: Path) -> None:
    import onnx

    graph = onnx.load(path).graph
    assert not [node.op_type for node in graph.node if "Random" in node.op_type or node.op_type == "Bernoulli"]
    shapes = [tuple(tensor.dims) for tensor in graph.initializer]
    weight = model.model.student.blocks[0].first[0].weight.shape  # the teacher's has the same shape
    assert weight == model.model.teacher.blocks[0].first[0].weight.shape
    assert shapes.count(tuple(weight)) == 1


def test_the_pickle_leaves_the_teacher_out_and_the_model_keeps_it(trained, tmp_path) -> None:
    before = weights(trained)
    loaded = torch.load(trained.to_torch(tmp_path), weights_only=False)["model"]
    assert not list(loaded.model.teacher.parameters())
    assert_same(before, weights(trained))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images).anomaly_map, trained(images).anomaly_map)
        from_safetensors = load_artifact(next(tmp_path.rglob("model.json")))
        assert torch.equal(from_safetensors(images).pred_score, trained(images).pred_score)


@pytest.mark.parametrize("k_shot", [1, 2])
def test_very_small_support_sets_are_enough(sample_data, tmp_path, k_shot) -> None:
    model = tiny_model()
    (metrics,) = steps(tmp_path, 3).train(model, datamodule=sample_datamodule(sample_data, k_shot=k_shot))
    assert 0 <= metrics["image_AUROC"] <= 1
    assert model.post_processor.image_threshold.isfinite()


@pytest.mark.parametrize("part", ["generator_loss", "discriminator_loss"])
def test_a_loss_that_is_not_finite_stops_the_run_with_the_cure(sample_data, tmp_path, part) -> None:
    model = tiny_model()
    judged = model.model.teacher.output if part == "generator_loss" else model.model.discriminator.readout
    torch.nn.init.constant_(judged.weight, float("nan"))
    with pytest.raises(FloatingPointError, match=rf"The {part} is nan at step .*--model.learning_rate"):
        steps(tmp_path, 6).fit(model, datamodule=sample_datamodule(sample_data))


def test_several_devices_are_refused_with_the_cure(sample_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "world_size", 2)
    with pytest.raises(ValueError, match=r"SQUID is trained on one device.*Give --trainer\.devices 1"):
        steps(tmp_path, 3).fit(tiny_model(), datamodule=sample_datamodule(sample_data))


@pytest.mark.parametrize("option", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}])
def test_what_would_be_ignored_is_refused(sample_data, tmp_path, option) -> None:
    (name,) = option
    with pytest.raises(MisconfigurationException, match=f"not supported for manual optimization.*{name}"):
        steps(tmp_path, 3, **option).fit(tiny_model(), datamodule=sample_datamodule(sample_data))


def test_options_of_the_training_are_free_and_others_are_not(sample_data, tmp_path) -> None:
    steps(tmp_path, 2, limit_val_batches=0).fit(tiny_model(), datamodule=sample_datamodule(sample_data))
    SQUID.load_from_checkpoint(checkpoint_of(tmp_path), shortcut=0.5, views=1, learning_rate=1.0)
    with pytest.raises(ValueError, match=r"Give --model\.top_k 4"):
        SQUID.load_from_checkpoint(checkpoint_of(tmp_path), top_k=2)


def test_mixed_precision_trains_every_parameter_and_changes_no_score(sample_data, tmp_path) -> None:
    model = tiny_model()
    before = weights(model)
    run = steps(tmp_path, 6, precision="bf16-mixed", limit_val_batches=0)
    run.fit(model, datamodule=sample_datamodule(sample_data))
    learnt = {name for name, _ in model.model.named_parameters()}
    assert learnt - changed(before, weights(model)) == set()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().model(images)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.model(images)
    assert torch.equal(found.pred_score, expected.pred_score)
    assert torch.equal(found.anomaly_map, expected.anomaly_map)
