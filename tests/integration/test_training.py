# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Training, resuming, checkpoints and export through anomalib's Engine, with a tiny random CLIP on the shipped set."""

import logging
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine

from anomalib_mediclip import MedicalFolder, MediCLIP
from tests.helpers.official import LAYERS, OfficialRun

IMAGE_SIZE = (84, 84)


def tiny_model(official: OfficialRun, **options) -> MediCLIP:
    return MediCLIP(
        **{"encoder": official.encoder, "layers": LAYERS, "image_size": IMAGE_SIZE, "views": 3, "visualizer": False}
        | options
    )


def sample_datamodule(root: Path, **options) -> MedicalFolder:
    return MedicalFolder(**{"root": root, "k_shot": 8, "train_batch_size": 4} | options)


def engine(folder: Path, epochs: int = 2, **options) -> Engine:
    return Engine(
        **{
            "max_epochs": epochs,
            "default_root_dir": folder,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        | options
    )


def learnt(model: MediCLIP) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.named_parameters() if value.requires_grad}


def trained(official: OfficialRun, root: Path, folder: Path, epochs: int = 2, **data_options) -> MediCLIP:
    model = tiny_model(official)
    engine(folder, epochs).fit(model, datamodule=sample_datamodule(root, **data_options))
    return model


def checkpoint_of(folder: Path) -> Path:
    return max(folder.rglob("model.ckpt"), key=lambda path: path.stat().st_mtime)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_same_seed_same_weights_bit_for_bit_with_and_without_workers(official, sample_data, tmp_path) -> None:
    first = learnt(trained(official, sample_data, tmp_path / "a"))
    torch.manual_seed(123)  # the state of the global generator must not matter
    assert_same(first, learnt(trained(official, sample_data, tmp_path / "b")))
    for workers in (2, 4):
        assert_same(first, learnt(trained(official, sample_data, tmp_path / f"c{workers}", num_workers=workers)))
    other = learnt(trained(official, sample_data, tmp_path / "d", seed=1))
    assert not torch.equal(first["prompts.context"], other["prompts.context"])


def test_metrics_files_and_scores_of_a_run(official, sample_data, tmp_path) -> None:
    model, datamodule = tiny_model(official), sample_datamodule(sample_data)
    run = engine(tmp_path)
    (metrics,) = run.train(model, datamodule=datamodule)
    assert set(metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    assert 0 < model.post_processor.image_threshold.item() < 1
    folder = Path(run.trainer.default_root_dir)
    listed = [line for line in (folder / "support_set.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(listed) == 8
    assert all((sample_data / line).is_file() for line in listed)


def test_sets_without_masks_report_image_metrics_only(official, sample_data, tmp_path, recwarn) -> None:
    datamodule = sample_datamodule(sample_data, mask_dir=None)
    (metrics,) = engine(tmp_path).train(tiny_model(official), datamodule=datamodule)
    assert set(metrics) == {"image_AUROC", "image_F1Score"}
    assert not [warning for warning in recwarn if "called before the ``update``" in str(warning.message)]


def test_checkpoint_holds_what_was_learnt_and_reloads_to_the_same_map(official, sample_data, tmp_path) -> None:
    model = trained(official, sample_data, tmp_path).eval()
    checkpoint = torch.load(checkpoint_of(tmp_path), weights_only=True)
    saved = {name for name in checkpoint["state_dict"] if name.startswith("model.")}
    assert saved == {f"model.{name}" for name in learnt(model)} | {"model.prompt_features"}
    assert checkpoint["frozen_encoder"]["name"] == official.encoder
    restored = MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path)).eval()
    images = torch.rand(2, 3, 120, 100)
    assert torch.equal(model(images).anomaly_map, restored(images).anomaly_map)
    assert torch.equal(model(images).pred_score, restored(images).pred_score)


def test_checkpoint_of_an_epoch_without_validation_predicts(official, sample_data, tmp_path) -> None:
    model = tiny_model(official)
    engine(tmp_path, epochs=3, limit_val_batches=0).fit(model, datamodule=sample_datamodule(sample_data))
    image = next((sample_data / "test" / "abnormal").glob("*.png"))
    ready = tiny_model(official).eval()  # no switch from training to evaluation computes the prompt features
    (batch,) = engine(tmp_path).predict(ready, data_path=image, ckpt_path=checkpoint_of(tmp_path))
    assert batch.anomaly_map.unique().numel() > 100


def test_uncalibrated_scores_are_said_to_be(official, sample_data, tmp_path, caplog) -> None:
    model = tiny_model(official)
    with caplog.at_level(logging.WARNING):
        engine(tmp_path, limit_val_batches=0).train(model, datamodule=sample_datamodule(sample_data))
    assert "The scores are not calibrated" in caplog.text


def test_a_run_limited_by_time_is_calibrated(official, sample_data, tmp_path) -> None:
    model = tiny_model(official)
    engine(tmp_path, epochs=-1, max_time={"seconds": 2}).fit(model, datamodule=sample_datamodule(sample_data))
    assert not model.post_processor.image_threshold.isnan()


def test_checkpoint_with_a_stateful_metric_of_the_user_loads(official, sample_data, tmp_path) -> None:
    from anomalib.metrics import AUPRO, Evaluator

    evaluator = Evaluator(test_metrics=[AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_")])
    model = tiny_model(official, evaluator=evaluator)
    engine(tmp_path, epochs=1).fit(model, datamodule=sample_datamodule(sample_data))
    MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path))


def test_encoder_folder_may_lie_elsewhere(official, sample_data, tmp_path) -> None:
    import shutil

    trained(official, sample_data, tmp_path / "run", epochs=1)
    shutil.copytree(official.encoder.removeprefix("local-dir:"), tmp_path / "moved")
    moved = MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path), encoder=f"local-dir:{tmp_path / 'moved'}")
    assert moved.model.prompt_features.abs().sum() > 0


def test_resuming_with_another_support_set_is_said(official, sample_data, tmp_path, caplog) -> None:
    trained(official, sample_data, tmp_path / "first", epochs=1)
    run = engine(tmp_path / "second", epochs=2)
    with caplog.at_level(logging.WARNING):
        run.fit(
            tiny_model(official),
            datamodule=sample_datamodule(sample_data, seed=1),
            ckpt_path=checkpoint_of(tmp_path / "first"),
        )
    assert "another support set" in caplog.text


def test_images_of_one_name_in_several_folders_get_anomalies_of_their_own(official, sample_data, tmp_path) -> None:
    import shutil

    for index, image in enumerate(sorted((sample_data / "train" / "normal").glob("*.png"))[:6]):
        folder = tmp_path / "data" / "train" / "normal" / f"patient_{index}"
        folder.mkdir(parents=True)
        shutil.copy(image, folder / "view1.png")
    shutil.copytree(sample_data / "test", tmp_path / "data" / "test")
    model, datamodule = tiny_model(official, views=1), sample_datamodule(tmp_path / "data", k_shot=6)
    names: list[str] = []
    generate = model.anomaly_generator.forward
    model.anomaly_generator.forward = lambda image, given, epoch: names.extend(given) or generate(image, given, epoch)
    engine(tmp_path, epochs=1).fit(model, datamodule=datamodule)
    assert sorted(names) == [f"patient_{index}/view1.png" for index in range(6)]
    painted = [
        datamodule.val_data[i].gt_mask for i in range(len(datamodule.val_data)) if datamodule.val_data[i].gt_label
    ]
    assert not all(torch.equal(painted[0], mask) for mask in painted[1:6])


def test_checkpoint_of_another_encoder_is_refused_with_both_names(official, sample_data, tmp_path) -> None:
    trained(official, sample_data, tmp_path)
    lite = {"encoder": "timm/resnet18", "weights": None, "layers": [2, 3], "prompt": "prototype"}
    with pytest.raises(ValueError) as error:
        MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path), **lite)
    assert official.encoder in str(error.value)
    assert "timm/resnet18" in str(error.value)
    with pytest.raises(ValueError, match="other weights"):
        MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path), weights=None)


@pytest.mark.parametrize("option", [{"layers": [2, 3, 4]}, {"temperature": 1.0}, {"aggregation": "similarity"}])
def test_checkpoint_under_other_settings_is_refused(official, sample_data, tmp_path, option) -> None:
    trained(official, sample_data, tmp_path, epochs=1)
    (name,) = option
    with pytest.raises(ValueError, match=rf"other settings .* Give --model.{name} "):
        MediCLIP.load_from_checkpoint(checkpoint_of(tmp_path), **option)


def test_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(official, sample_data, tmp_path) -> None:
    expected = learnt(trained(official, sample_data, tmp_path / "whole", epochs=3))
    interrupted = tiny_model(official)
    engine(tmp_path / "cut", epochs=1).fit(interrupted, datamodule=sample_datamodule(sample_data))
    checkpoint = checkpoint_of(tmp_path / "cut")
    resumed = tiny_model(official)
    run = engine(tmp_path / "resumed", epochs=3)
    run.train(resumed, datamodule=sample_datamodule(sample_data), ckpt_path=checkpoint)
    assert_same(expected, learnt(resumed))


def test_diverged_training_stops_and_keeps_the_last_checkpoint(official, sample_data, tmp_path) -> None:
    model = tiny_model(official)
    loss = model.loss.forward
    model.loss.forward = lambda *args: loss(*args) * (float("nan") if model.current_epoch == 1 else 1)
    with pytest.raises(FloatingPointError) as error:
        engine(tmp_path, epochs=3).fit(model, datamodule=sample_datamodule(sample_data))
    kept = checkpoint_of(tmp_path)
    assert "step 2 (epoch 1)" in str(error.value)
    assert str(kept) in str(error.value)
    assert torch.load(kept, weights_only=True)["global_step"] == 2


def test_validation_runs_once_after_the_last_epoch(official, sample_data, tmp_path) -> None:
    model = tiny_model(official)
    epochs: list[int] = []
    step = model.validation_step
    model.validation_step = lambda *args, **kwargs: epochs.append(model.current_epoch) or step(*args, **kwargs)
    engine(tmp_path, epochs=3).fit(model, datamodule=sample_datamodule(sample_data))
    assert epochs == [3]


def test_a_run_limited_by_steps_is_calibrated(official, sample_data, tmp_path) -> None:
    model = tiny_model(official)
    engine(tmp_path, epochs=None, max_steps=2).fit(model, datamodule=sample_datamodule(sample_data))
    assert not model.post_processor.image_threshold.isnan()


def test_default_number_of_epochs_is_200_and_the_user_wins(official, sample_data, tmp_path) -> None:
    run = engine(tmp_path, epochs=None)
    run._setup_workspace(tiny_model(official), datamodule=sample_datamodule(sample_data))
    run._setup_trainer(tiny_model(official))
    assert run.trainer.max_epochs == 200
    for chosen in ({"max_epochs": 1000}, {"max_epochs": 3}, {"max_epochs": None, "max_steps": 2}):
        run = engine(tmp_path, **chosen)
        run._setup_workspace(tiny_model(official), datamodule=sample_datamodule(sample_data))
        run._setup_trainer(tiny_model(official))
        assert (run.trainer.max_epochs, run.trainer.max_steps) == (
            chosen["max_epochs"],
            chosen.get("max_steps", -1),
        )


def test_normalising_pre_processor_is_refused(official, sample_data, tmp_path) -> None:
    from anomalib.models.components import AnomalibModule

    model = tiny_model(official, pre_processor=AnomalibModule.configure_pre_processor(IMAGE_SIZE))
    with pytest.raises(ValueError, match="Remove Normalize"):
        engine(tmp_path).fit(model, datamodule=sample_datamodule(sample_data))


def test_sixteen_bit_images_are_predicted_without_saturation(official, tmp_path) -> None:
    import numpy as np
    from PIL import Image

    ramp = np.linspace(0, 4095, 100 * 100).reshape(100, 100)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "deep.png")
    model = tiny_model(official).eval()
    (batch,) = engine(tmp_path).predict(model, data_path=tmp_path / "deep.png")
    assert batch.image.unique().numel() > 1000
    assert batch.image.min() < 0.02
    assert batch.image.max() > 0.98


def test_exports_of_a_vit_agree_on_real_images(official, sample_data, tmp_path) -> None:
    import onnxruntime
    import openvino

    from anomalib_mediclip.io import read_image

    model = trained(official, sample_data, tmp_path / "run").eval()
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path), providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(model.to_openvino(tmp_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for path in sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]:
        image = read_image(path)[None]
        with torch.no_grad():
            expected = model(image)
        in_onnx, in_openvino = session.run(["anomaly_map"], {"input": image.numpy()})[0], compiled(image.numpy())
        torch.testing.assert_close(torch.from_numpy(in_onnx), expected.anomaly_map, atol=1e-3, rtol=0)
        torch.testing.assert_close(
            torch.from_numpy(in_openvino["anomaly_map"]), expected.anomaly_map, atol=1e-3, rtol=0
        )
