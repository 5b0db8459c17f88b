# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SimpleNet through anomalib's Engine, with a random backbone on the shipped set."""

from pathlib import Path

import pytest
import torch
import yaml
from anomalib.engine import Engine
from anomalib.models import get_model
from anomalib.models.components import AnomalibModule
from sklearn.metrics import roc_auc_score
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_mediclip import CalibrationPostProcessor, MedicalFolder, MediCLIP, SimpleNet
from tests.conftest import REPOSITORY


def tiny_model(**options) -> SimpleNet:
    return SimpleNet(
        **{"encoder": "timm/resnet18", "weights": None, "image_size": (64, 64), "noise": 0.5, "visualizer": False}
        | options
    )


def sample_datamodule(root: Path, **options) -> MedicalFolder:
    return MedicalFolder(**{"root": root, "k_shot": 8, "train_batch_size": 4} | options)


def engine(folder: Path, epochs: int | None = 2) -> Engine:
    return Engine(
        max_epochs=epochs,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def trained(root: Path, folder: Path, epochs: int = 2, seed: int = 0, **data_options) -> SimpleNet:
    model = tiny_model(seed=seed)
    engine(folder, epochs).fit(model, datamodule=sample_datamodule(root, **data_options))
    return model


def learnt(model: SimpleNet) -> dict[str, torch.Tensor]:
    """Parameters and the batch normalisation's statistics."""
    return {name: value.clone() for name, value in model.model.state_dict().items() if "vision_encoder" not in name}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def checkpoint_of(folder: Path) -> Path:
    return next(folder.rglob("model.ckpt"))


def test_anomalib_finds_it_by_its_short_name_beside_mediclip() -> None:
    assert isinstance(get_model("SimpleNet", encoder="timm/resnet18", weights=None), SimpleNet)
    assert {MediCLIP, SimpleNet} <= set(AnomalibModule.__subclasses__())


def test_trains_tests_and_calibrates(sample_data, tmp_path) -> None:
    model = tiny_model()
    before = learnt(model)
    (metrics,) = engine(tmp_path).train(model, datamodule=sample_datamodule(sample_data))
    assert set(metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    assert not torch.equal(before["adaptor.weight"], learnt(model)["adaptor.weight"])
    images = torch.rand(4, 3, 64, 64)
    raw, predictions = model.eval().model(images), model(images)
    image_threshold, pixel_threshold = model.post_processor.image_threshold, model.post_processor.pixel_threshold
    torch.testing.assert_close(predictions.pred_score, (raw.pred_score - image_threshold).sigmoid())
    torch.testing.assert_close(predictions.anomaly_map, (raw.anomaly_map - pixel_threshold).sigmoid())
    assert torch.equal(predictions.pred_label, raw.pred_score > image_threshold)


def test_predictions_are_probabilities_before_training_too() -> None:
    model, images = tiny_model().eval(), torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(images).pred_score, model.model(images).pred_score.sigmoid())
    torch.testing.assert_close(model(images).anomaly_map, model.model(images).anomaly_map.sigmoid())


def test_auroc_is_that_of_the_raw_scores_where_probabilities_tie(sample_data, tmp_path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.discriminator[3].weight *= 1000
    batches = engine(tmp_path).predict(model, datamodule=sample_datamodule(sample_data))
    scores, labels = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("raw_pred_score", "gt_label"))
    assert (scores > 18).sum() > 2
    expected = roc_auc_score(labels, scores)
    assert roc_auc_score(labels, scores.sigmoid()) != pytest.approx(expected, abs=1e-3)
    (metrics,) = engine(tmp_path).test(model, datamodule=sample_datamodule(sample_data))
    assert metrics["image_AUROC"] == pytest.approx(expected, abs=1e-6)


def test_post_processor_for_probabilities_is_refused() -> None:
    with pytest.raises(TypeError, match=r"SimpleNet.*LogitCalibrationPostProcessor"):
        tiny_model(post_processor=CalibrationPostProcessor())


def test_same_seed_same_weights_bit_for_bit_with_and_without_workers(sample_data, tmp_path) -> None:
    first = learnt(trained(sample_data, tmp_path / "a"))
    torch.manual_seed(123)  # the state of the global generator must not matter
    assert_same(first, learnt(trained(sample_data, tmp_path / "b", num_workers=2)))
    other = learnt(trained(sample_data, tmp_path / "c", seed=1))
    assert not torch.equal(first["adaptor.weight"], other["adaptor.weight"])


def test_noise_differs_from_step_to_step(sample_data, tmp_path) -> None:
    model = tiny_model()
    drawn: list[float] = []
    head = model.model.head

    def watched(features, image_size, generator: torch.Generator | None = None):
        if generator is not None:
            drawn.append(generator.initial_seed())
        return head(features, image_size, generator)

    model.model.head = watched
    engine(tmp_path).fit(model, datamodule=sample_datamodule(sample_data))
    assert len(drawn) == len(set(drawn)) == 4


def test_the_support_set_is_encoded_once(sample_data, tmp_path) -> None:
    model, sizes, compared = tiny_model(), [], []
    encoder, of_batch = model.model.vision_encoder, model.support_features

    def compare(batch):
        features = of_batch(batch)
        for block, expected in zip(features, encoder.forward(batch.image), strict=True):  # past the hook
            torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-4)
        compared.append(len(batch.image))
        return features

    model.support_features = compare
    encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])) if model.training else None)
    engine(tmp_path, epochs=3).fit(model, datamodule=sample_datamodule(sample_data))
    assert (sum(sizes), sum(compared)) == (8, 3 * 8)


def test_images_that_augmentations_change_are_encoded_every_time(sample_data, tmp_path) -> None:
    model, sizes = tiny_model(), []
    model.model.vision_encoder.register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0])) if model.training else None
    )
    data = sample_datamodule(sample_data, train_augmentations=RandomHorizontalFlip())
    engine(tmp_path, epochs=3).fit(model, datamodule=data)
    assert sum(sizes) == 3 * 8


def test_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(sample_data, tmp_path) -> None:
    expected = learnt(trained(sample_data, tmp_path / "whole", epochs=3))
    trained(sample_data, tmp_path / "cut", epochs=1)
    resumed = tiny_model()
    data = sample_datamodule(sample_data)
    engine(tmp_path / "resumed", epochs=3).train(resumed, datamodule=data, ckpt_path=checkpoint_of(tmp_path / "cut"))
    assert_same(expected, learnt(resumed))


def test_checkpoint_holds_no_backbone_and_reloads_to_the_same_map(sample_data, tmp_path) -> None:
    model = trained(sample_data, tmp_path).eval()
    checkpoint = torch.load(checkpoint_of(tmp_path), weights_only=True)
    saved = {name for name in checkpoint["state_dict"] if name.startswith("model.")}
    assert saved == {f"model.{name}" for name in learnt(model)}
    restored = SimpleNet.load_from_checkpoint(checkpoint_of(tmp_path)).eval()
    images = torch.rand(2, 3, 120, 100)
    assert torch.equal(model(images).anomaly_map, restored(images).anomaly_map)
    assert torch.equal(model(images).pred_score, restored(images).pred_score)


def test_checkpoint_of_another_backbone_is_refused_with_both_names(sample_data, tmp_path) -> None:
    trained(sample_data, tmp_path)
    with pytest.raises(ValueError) as error:
        SimpleNet.load_from_checkpoint(checkpoint_of(tmp_path), encoder="timm/resnet34")
    assert "timm/resnet18" in str(error.value)
    assert "timm/resnet34" in str(error.value)


def test_onnx_agrees_on_real_images(sample_data, tmp_path) -> None:
    import onnxruntime

    from anomalib_mediclip.io import read_image

    model = trained(sample_data, tmp_path / "run").eval()
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path), providers=["CPUExecutionProvider"])
    for path in sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]:
        image = read_image(path)[None]
        with torch.no_grad():
            expected = model(image)
        anomaly_map, pred_score = session.run(["anomaly_map", "pred_score"], {"input": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(anomaly_map), expected.anomaly_map, atol=1e-3, rtol=0)
        torch.testing.assert_close(torch.from_numpy(pred_score), expected.pred_score, atol=1e-3, rtol=0)


def test_optimiser_and_epochs_are_the_papers_and_the_user_wins(sample_data, tmp_path) -> None:
    groups = tiny_model().configure_optimizers().param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-4, 1e-5), (2e-4, 1e-5)]
    for epochs, expected in ((None, 160), (3, 3)):
        run = engine(tmp_path, epochs)
        run._setup_workspace(tiny_model(), datamodule=sample_datamodule(sample_data))
        run._setup_trainer(tiny_model())
        assert run.trainer.max_epochs == expected


def test_normalising_pre_processor_is_refused(sample_data, tmp_path) -> None:
    model = tiny_model(pre_processor=AnomalibModule.configure_pre_processor((64, 64)))
    with pytest.raises(ValueError, match=r"SimpleNet takes images in \[0, 1\].*Remove Normalize"):
        engine(tmp_path).fit(model, datamodule=sample_datamodule(sample_data))


def test_configuration_of_the_paper_is_the_default() -> None:
    import inspect

    defaults = {name: parameter.default for name, parameter in inspect.signature(SimpleNet).parameters.items()}
    text = (REPOSITORY / "configs" / "model" / "simplenet.yaml").read_text()
    for name, value in yaml.safe_load(text)["model"]["init_args"].items():
        assert defaults[name] == (tuple(value) if isinstance(value, list) else value), name
