# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""AnoDDPM through anomalib's Engine, with a tiny U-Net."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.models import get_model
from lightning import Callback

from anomalib_mediclip import AnoDDPM
from anomalib_mediclip.export import ExportedModel
from anomalib_mediclip.host import periodic_checkpoint
from anomalib_mediclip.io import read_image
from anomalib_mediclip.models.components.grey_views import to_grey
from anomalib_mediclip.seeds import generator_of
from tests.integration.test_fitted_module import Stop, sample_datamodule, steps
from tests.integration.test_training import assert_same, checkpoint_of

TINY = {
    "image_size": (32, 32), "channels": (8, 16), "residual_blocks": 1, "attention": (False, True), "wavelength": 8,
    "octaves": 3, "partial_steps": 20, "train_timesteps": 20, "sampling_steps": 3, "views": 4, "visualizer": False,
}  # fmt: skip


def tiny_model(**options) -> AnoDDPM:
    return AnoDDPM(**{**TINY, **options})


def state(model: AnoDDPM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def test_anomalib_finds_it_by_its_short_name() -> None:
    assert isinstance(get_model("AnoDDPM", image_size=(16, 16), channels=(8,), attention=(True,)), AnoDDPM)


def test_it_is_trained_tested_and_calibrated(sample_data, tmp_path) -> None:
    model = tiny_model()
    before = state(model)
    run = steps(tmp_path, 3)
    (metrics,) = run.train(model, datamodule=sample_datamodule(sample_data))
    assert set(metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    assert model.model.average.n_averaged == run.trainer.global_step == 3
    changed = {name.split(".")[0] for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert changed == {"network", "average"}
    restored = AnoDDPM.load_from_checkpoint(checkpoint_of(tmp_path)).eval()
    images = torch.rand(2, 3, 40, 50)
    with torch.no_grad():
        shown = model.eval()(images)
        assert torch.equal(restored(images).anomaly_map, shown.anomaly_map)
    assert 0 <= shown.pred_score.min() <= shown.pred_score.max() <= 1
    assert not model.post_processor.image_threshold.isnan()


def test_a_resumed_run_ends_in_the_bits_of_an_uninterrupted_one(sample_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(periodic_checkpoint, "INTERVAL", 0.0)
    whole, cut, resumed, other = tiny_model(), tiny_model(), tiny_model(), tiny_model(seed=1)
    steps(tmp_path / "whole", 4).fit(whole, datamodule=sample_datamodule(sample_data))
    run = steps(tmp_path / "cut", 4, callbacks=[Stop()], limit_val_batches=0)
    with pytest.raises(SystemExit):
        run.fit(cut, datamodule=sample_datamodule(sample_data))
    torch.manual_seed(5)  # the state of the global generator must not matter
    data = sample_datamodule(sample_data, num_workers=2)
    steps(tmp_path / "resumed", 4).fit(resumed, datamodule=data, ckpt_path=checkpoint_of(tmp_path / "cut"))
    assert_same(state(whole), state(resumed))
    steps(tmp_path / "other", 4).fit(other, datamodule=sample_datamodule(sample_data))
    name = "average.module.conv_in.conv.weight"
    assert not torch.equal(state(whole)[name], state(other)[name])


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_exports_agree_on_real_images(sample_data, tmp_path, form) -> None:
    model = tiny_model(sampling_steps=10)
    steps(tmp_path / "run", 2).fit(model, datamodule=sample_datamodule(sample_data))
    exported = ExportedModel(getattr(model.eval(), f"to_{form}")(tmp_path))
    images = torch.stack([read_image(path) for path in sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]])
    with torch.no_grad():
        expected = model(images)
    found = exported(images.numpy())
    np.testing.assert_allclose(found["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
    np.testing.assert_allclose(found["pred_score"], expected.pred_score.numpy(), atol=1e-3)


def test_an_exported_graph_holds_the_network_once_and_no_path_of_this_machine(tmp_path) -> None:
    sizes = []
    for sampling_steps in (2, 20):
        path = tiny_model(sampling_steps=sampling_steps).to_onnx(tmp_path / str(sampling_steps))
        sizes.append(path.stat().st_size)
        assert str(Path(torch.__file__).parents[1]).encode() not in path.read_bytes()
    assert sizes[1] < 1.01 * sizes[0]


def test_a_graph_with_new_noise_is_refused_but_not_the_pickle(tmp_path) -> None:
    model = tiny_model(sampling_steps=None)
    for form in ("onnx", "openvino"):
        with pytest.raises(ValueError, match=r"has no new noise.*Train with .* --model.sampling_steps 25"):
            getattr(model, f"to_{form}")(tmp_path)
    exported = torch.load(model.to_torch(tmp_path), weights_only=False)["model"]
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(exported(images).anomaly_map, model.eval()(images).anomaly_map)
    assert not list(exported.model.network.parameters())
    assert list(model.model.network.parameters())


def test_gradients_are_clipped(sample_data, tmp_path) -> None:
    class Norms(Callback):
        seen: list[float] = []  # noqa: RUF012  # of one run

        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            gradients = [
                parameter.grad for parameter in pl_module.model.network.parameters() if parameter.grad is not None
            ]
            self.seen.append(torch.nn.utils.get_total_norm(gradients).item())

        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            gradients = [
                parameter.grad for parameter in pl_module.model.network.parameters() if parameter.grad is not None
            ]
            if gradients:
                self.seen.append(torch.nn.utils.get_total_norm(gradients).item())

    model = tiny_model()
    training_loss = model.model.denoising_loss
    model.model.denoising_loss = lambda *arguments: 1000 * training_loss(*arguments)
    steps(tmp_path, 2, callbacks=[Norms()]).fit(model, datamodule=sample_datamodule(sample_data))
    assert max(Norms.seen) > 1
    assert min(Norms.seen) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("k_shot", [1, 3])
def test_very_small_support_sets_work(sample_data, tmp_path, k_shot) -> None:
    model = tiny_model()
    (metrics,) = steps(tmp_path, 1).train(model, datamodule=sample_datamodule(sample_data, k_shot=k_shot))
    assert 0 <= metrics["image_AUROC"] <= 1
    assert not model.post_processor.image_threshold.isnan()


def test_a_loss_that_is_not_finite_stops_the_run_with_the_cure(sample_data, tmp_path) -> None:
    with pytest.raises(FloatingPointError, match=r"The loss is .* at step .*Lower --model.learning_rate \(1e\+30\)"):
        steps(tmp_path, 20).fit(tiny_model(learning_rate=1e30), datamodule=sample_datamodule(sample_data))


@pytest.mark.slow
def test_it_learns_to_tell_noise_and_shows_a_disc_that_it_never_saw(sample_data, tmp_path) -> None:
    model = tiny_model(partial_steps=250, train_timesteps=250, sampling_steps=10, views=8, learning_rate=2e-3)
    datamodule = sample_datamodule(sample_data)
    datamodule.setup()
    normal = torch.stack([model.transformed(item.image) for item in datamodule.train_data])
    permutations = torch.stack([torch.randperm(256, generator=generator_of(number)) for number in range(4)])
    times = torch.tensor([40, 90, 150, 220])
    before = model.model.denoising_loss(to_grey(normal), times, permutations).item()
    steps(tmp_path, 300).fit(model, datamodule=datamodule)
    model.eval()
    with torch.no_grad():
        after = model.model.denoising_loss(to_grey(normal), times, permutations).item()
        y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        disc = (y - 12).square() + (x - 18).square() < 16
        anomaly_map = model.model(torch.where(disc, 1.0, normal)).anomaly_map[:, 0]
    assert after < before / 3
    assert (anomaly_map[:, disc].mean(dim=1) > 2 * anomaly_map[:, ~disc].mean(dim=1)).all()
