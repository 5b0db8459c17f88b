# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""RegAD through anomalib's Engine, with a random backbone on the shipped set."""

import inspect
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from anomalib.engine import Engine
from lightning import Callback
from PIL import Image, ImageOps

from anomalib_mediclip import CalibrationPostProcessor, MedicalFolder
from anomalib_mediclip.export import ExportedModel
from anomalib_mediclip.io import find_images, read_image
from anomalib_mediclip.models.reg_ad import RegAD, RegADModel
from tests.conftest import REPOSITORY


class StopAfter(Callback):
    """Ends a training after some steps; its schedule is still that of the whole."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer, *args) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


def tiny_model(**options) -> RegAD:
    defaults = {
        "encoder": "timm/resnet18",
        "weights": None,
        "layers": (2, 3),
        "image_size": (64, 64),
        "views": ["flip", "translate"],
        "learning_rate": 0.01,
        "queries": 4,
        "statistics_stride": 8,
        "visualizer": False,
    }
    return RegAD(**defaults | options)


def sample_datamodule(root: Path, **options) -> MedicalFolder:
    return MedicalFolder(**{"root": root, "k_shot": 6, "train_batch_size": 3} | options)


def engine(folder: Path, steps: int = 4, *callbacks: Callback, **options) -> Engine:
    return Engine(
        max_steps=steps,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )


def trained(root: Path, folder: Path, steps: int = 4, **options) -> RegAD:
    model = tiny_model(**options)
    engine(folder, steps, limit_val_batches=0).fit(model, datamodule=sample_datamodule(root))
    return model


def state(model: RegAD) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def checkpoint_of(folder: Path) -> Path:
    return next(folder.rglob("model.ckpt"))


def support_images(model: RegAD, datamodule: MedicalFolder) -> torch.Tensor:
    dataset = datamodule.train_data
    return torch.stack([model.transformed(dataset[index].image) for index in range(len(dataset))])


@pytest.fixture(scope="module")
def run(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RegAD, MedicalFolder, dict, Path]:
    """Train and test; the model, its data, the metrics and the folder."""
    folder = tmp_path_factory.mktemp("run")
    model, datamodule = tiny_model(), sample_datamodule(sample_data)
    (metrics,) = engine(folder).train(model, datamodule=datamodule)
    return model.eval(), datamodule, metrics, folder


def test_trains_tests_and_calibrates(run) -> None:
    model, _, metrics, _ = run
    assert set(metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    before, after = state(tiny_model()), state(model)
    for name in ("encoder.stages.0.0.weight", "transformers.1.localise.11.bias", "head.predictor.3.weight"):
        assert not torch.equal(before[name], after[name]), name
    with torch.no_grad():
        images = torch.rand(4, 3, 64, 64)
        raw, predictions = model.model(images), model(images)
    image_threshold, pixel_threshold = model.post_processor.image_threshold, model.post_processor.pixel_threshold
    torch.testing.assert_close(predictions.pred_score, raw.pred_score / (raw.pred_score + image_threshold))
    torch.testing.assert_close(predictions.anomaly_map, raw.anomaly_map / (raw.anomaly_map + pixel_threshold))


def test_statistics_are_those_of_the_weights_that_remain(run) -> None:
    model, datamodule, _, _ = run
    found = state(model)
    again = tiny_model().eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        again.model.fit(support_images(model, datamodule), 0)
    torch.testing.assert_close(state(again)["statistics.mean"], found["statistics.mean"])
    torch.testing.assert_close(state(again)["statistics.factor"], found["statistics.factor"], atol=1e-4, rtol=1e-3)
    assert model.model.seen == []  # freed when the training ended


def test_thresholds_are_those_of_support_images_among_the_others(run) -> None:
    model, datamodule, _, _ = run
    support = support_images(model, datamodule)
    scores = []
    with torch.no_grad():
        for number in range(6):
            others = tiny_model().eval()
            others.load_state_dict(model.state_dict())
            others.model.fit(support[torch.arange(6) != number], 0)
            scores.append(others.model(support[[number]]).pred_score)
    torch.testing.assert_close(model.post_processor.normal_scores, torch.cat(scores), atol=0, rtol=1e-3)


def test_checkpoint_reloads_to_the_same_map(run) -> None:
    model, _, _, folder = run
    restored = RegAD.load_from_checkpoint(checkpoint_of(folder)).eval()
    images = torch.rand(2, 3, 120, 100)
    with torch.no_grad():
        assert torch.equal(model(images).anomaly_map, restored(images).anomaly_map)
        assert torch.equal(model(images).pred_score, restored(images).pred_score)


def test_checkpoint_loads_under_other_options_of_training_only(run) -> None:
    checkpoint = checkpoint_of(run[3])
    RegAD.load_from_checkpoint(checkpoint, learning_rate=1.0, shots=5, train_backbone=False, queries=1)
    with pytest.raises(ValueError, match=r"Give --model\.ridge 0\.01"):
        RegAD.load_from_checkpoint(checkpoint, ridge=0.1)


def test_onnx_and_openvino_agree_on_real_images(run, sample_data, tmp_path) -> None:
    openvino = pytest.importorskip("openvino")
    model = tiny_model().eval()
    model.load_state_dict(run[0].state_dict())
    with torch.no_grad():
        for transformer in model.model.transformers:  # a few steps hardly move them
            transformer.localise[-1].weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
        model.model.fit(support_images(model, run[1]), 0)
    path = model.to_onnx(tmp_path)
    openvino.save_model(openvino.convert_model(path), tmp_path / "model.xml", compress_to_fp16=False)
    for exported in (ExportedModel(path), ExportedModel(tmp_path / "model.xml")):
        for file in sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]:
            image = read_image(file)[None]
            with torch.no_grad():
                expected = model(image)
                _, matrices = model.model._stages(model.pre_processor(image))
            found = exported(image.numpy())
            np.testing.assert_allclose(found["anomaly_map"].reshape(1, 1, 64, 64), expected.anomaly_map, atol=1e-3)
            np.testing.assert_allclose(found["pred_score"].reshape(1), expected.pred_score, atol=1e-3)
            assert (matrices[0] - torch.eye(3)[:2]).abs().max() > 0.02  # maps are moved indeed


def test_same_seed_same_bits_whatever_the_global_generator(sample_data, tmp_path) -> None:
    first = state(trained(sample_data, tmp_path / "a", steps=2))
    torch.manual_seed(123)
    assert_same(first, state(trained(sample_data, tmp_path / "b", steps=2)))
    other = state(trained(sample_data, tmp_path / "c", steps=2, seed=1))
    assert not torch.equal(first["head.encoder.0.weight"], other["head.encoder.0.weight"])


def test_resumed_run_ends_in_the_bits_of_an_uninterrupted_one(sample_data, tmp_path) -> None:
    whole = state(trained(sample_data, tmp_path / "whole"))
    cut = engine(tmp_path / "cut", 4, StopAfter(2), limit_val_batches=0)
    cut.fit(tiny_model(), datamodule=sample_datamodule(sample_data))
    assert cut.trainer.global_step == 2
    resumed = tiny_model()
    again = engine(tmp_path / "resumed", 4, limit_val_batches=0)
    again.fit(resumed, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint_of(tmp_path / "cut"))
    assert_same(whole, state(resumed))


def test_control_trains_nothing_and_nothing_in_it_is_random(sample_data, tmp_path) -> None:
    models = [tiny_model(registration="none", seed=3), tiny_model(registration="none", seed=3)]
    initial = state(models[0])
    for number, model in enumerate(models):
        torch.manual_seed(number)
        run = engine(tmp_path / str(number), 100)
        run.train(model, datamodule=sample_datamodule(sample_data))
        assert run.trainer.global_step == 0
    found = state(models[0])
    assert_same(found, state(models[1]))
    assert {name.split(".")[0] for name in found} == {"encoder", "statistics", "anomaly_map_generator"}
    assert all(torch.equal(found[name], initial[name]) for name in initial if name.startswith("encoder"))
    assert models[0].is_calibrated


@pytest.mark.parametrize("k_shot", [1, 2])
def test_one_or_two_support_images_are_enough(sample_data, tmp_path, k_shot) -> None:
    model = tiny_model()
    engine(tmp_path, 2).fit(model, datamodule=sample_datamodule(sample_data, k_shot=k_shot))
    assert model.is_calibrated
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 3, 64, 64)).anomaly_map.isfinite().all()


def shown(image: torch.Tensor) -> float:
    """Return a number by which an image is recognised."""
    return image.double().sum().item()


def other_categories(sample_data: Path, root: Path) -> list[str]:
    """Invert test images, as if they were of two other categories."""
    images = find_images(sample_data / "test" / "abnormal")
    for folder, chosen in {"lung": images[:4], "knee": images[4:9]}.items():
        (root / folder).mkdir()
        for path in chosen:
            ImageOps.invert(Image.open(path).convert("L")).save(root / folder / path.name)
    return [str(root / "lung"), str(root / "knee")]


def test_other_categories_are_registered_in_place_of_the_support_set(sample_data, tmp_path, caplog) -> None:
    folders = other_categories(sample_data, tmp_path)
    model, seen = tiny_model(registration=folders, queries=3), []
    known = [{shown(model.transformed(read_image(path))) for path in find_images(folder)} for folder in folders]
    register = model.model.register

    def watched(queries, supports):
        seen.append({shown(image) for image in [*queries, *supports.flatten(0, 1)]})
        return register(queries, supports)

    model.model.register = watched
    with caplog.at_level(logging.INFO):
        engine(tmp_path / "run", 3, limit_val_batches=0).fit(model, datamodule=sample_datamodule(sample_data))
    assert "9 images of 2 folders" in caplog.text
    assert len(seen) == 3
    assert all(any(images <= category for category in known) for images in seen)
    for folder in folders:
        shutil.rmtree(folder)
    RegAD.load_from_checkpoint(checkpoint_of(tmp_path / "run"))  # needs the folders no more


def test_a_resumed_run_on_other_categories_ends_in_the_same_bits(sample_data, tmp_path) -> None:
    folders = other_categories(sample_data, tmp_path)
    whole = state(trained(sample_data, tmp_path / "whole", registration=folders))
    cut = engine(tmp_path / "cut", 4, StopAfter(2), limit_val_batches=0)
    cut.fit(tiny_model(registration=folders), datamodule=sample_datamodule(sample_data))
    resumed = tiny_model(registration=folders)
    again = engine(tmp_path / "resumed", 4, limit_val_batches=0)
    again.fit(resumed, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint_of(tmp_path / "cut"))
    assert_same(whole, state(resumed))


@pytest.mark.parametrize("hidden", ["train_data", "test_data"])
def test_an_image_of_the_target_in_another_category_is_refused_by_name(sample_data, tmp_path, hidden) -> None:
    folders = other_categories(sample_data, tmp_path)
    datamodule = sample_datamodule(sample_data)
    datamodule.setup()
    shutil.copy(getattr(datamodule, hidden).samples.image_path[2], tmp_path / "knee" / "hidden.png")
    with pytest.raises(ValueError, match=r"hidden\.png is an image of the support set"):
        engine(tmp_path / "run", 2).fit(tiny_model(registration=folders), datamodule=datamodule)


def test_every_step_registers_something_else(sample_data, tmp_path) -> None:
    model, seen = tiny_model(), []
    register = model.model.register

    def watched(queries, supports):
        seen.append(torch.cat([queries.flatten(), supports.flatten()]))
        return register(queries, supports)

    model.model.register = watched
    run = engine(tmp_path, 2, limit_val_batches=0, accumulate_grad_batches=2)
    run.fit(model, datamodule=sample_datamodule(sample_data))
    assert len(seen) == 4  # two in each step
    assert not any(torch.equal(seen[a], seen[b]) for a in range(4) for b in range(a))


def test_a_collapse_is_reported_once_with_its_figures(sample_data, tmp_path, caplog) -> None:
    model = tiny_model()
    forward = model.loss.forward
    model.loss.forward = lambda found: 0 * forward(found) - 0.9995
    engine(tmp_path, 3, limit_val_batches=0).fit(model, datamodule=sample_datamodule(sample_data))
    (warning,) = [record.getMessage() for record in caplog.records if "-0.9995" in record.getMessage()]
    assert "within 3 steps" in warning
    assert "--model.learning_rate (0.01)" in warning


def test_a_loss_that_is_not_finite_stops_the_run_with_a_cure(sample_data, tmp_path) -> None:
    model = tiny_model()
    forward = model.loss.forward
    model.loss.forward = lambda found: forward(found) * float("nan")
    with pytest.raises(FloatingPointError, match=r"nan at step 0.*Lower --model\.learning_rate \(0\.01\)"):
        engine(tmp_path, 3).fit(model, datamodule=sample_datamodule(sample_data))


def test_learning_rate_falls_along_one_cosine(sample_data, tmp_path) -> None:
    model, rates = tiny_model(learning_rate=0.1), []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, *args) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    engine(tmp_path, 4, Watch(), limit_val_batches=0).fit(model, datamodule=sample_datamodule(sample_data))
    assert rates == pytest.approx([0.1, 0.1 * (1 + 2**-0.5) / 2, 0.05, 0.1 * (1 - 2**-0.5) / 2])
    assert tiny_model().default_trainer_arguments["max_steps"] == 100


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"registration": "folder"}, "use none, support, or a list of folders, such as \\[folder\\]"),
        ({"registration": []}, "at least one folder"),
        ({"shots": 0}, "shots=0"),
        ({"queries": 0}, "queries=0"),
    ],
)
def test_wrong_options_are_named(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_model(**options)


def test_post_processor_for_probabilities_is_refused() -> None:
    with pytest.raises(TypeError, match=r"RegAD.*DistanceCalibrationPostProcessor"):
        tiny_model(post_processor=CalibrationPostProcessor())


def test_configuration_of_the_paper_is_the_default() -> None:
    configuration = yaml.safe_load((REPOSITORY / "configs" / "model" / "reg_ad.yaml").read_text())
    defaults = {name: parameter.default for name, parameter in inspect.signature(RegAD).parameters.items()}
    for name, value in configuration["model"]["init_args"].items():
        assert defaults[name] == (tuple(value) if isinstance(value, list) else value), name
    assert configuration["trainer"]["max_steps"] == RegAD.MAX_STEPS
    shared = inspect.signature(RegADModel).parameters
    assert all(shared[name].default == defaults[name] for name in shared if name not in ("seed",))
