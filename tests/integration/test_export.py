# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Exports of a tiny random CLIP that was trained on the shipped set: what they hold, and that all of them agree."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.deploy import CompressionType, OpenVINOInferencer, TorchInferencer
from scipy.stats import spearmanr

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.export import ExportedModel, load_artifact
from anomalib_mediclip.io import read_image
from tests.integration.test_training import checkpoint_of, engine, sample_datamodule, tiny_model

F32 = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(scope="module")
def checkpoint(official, sample_data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and test, and return the checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    engine(folder, epochs=8).train(tiny_model(official), datamodule=sample_datamodule(sample_data))
    return checkpoint_of(folder)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MediCLIP:
    return MediCLIP.load_from_checkpoint(checkpoint).eval()


@pytest.fixture(scope="module")
def exports(model: MediCLIP, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    return {
        "torch": model.to_torch(folder),
        "onnx": model.to_onnx(folder),
        "openvino": model.to_openvino(folder),
        "FP16": model.to_openvino(folder / "FP16", compression_type=CompressionType.FP16),
        "INT8": model.to_openvino(folder / "INT8", compression_type=CompressionType.INT8),
    }


@pytest.fixture(scope="module")
def images(sample_data: Path) -> list[torch.Tensor]:
    """Return real images, one of them large, one small and oblong."""
    paths = sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]
    first, second, third = (read_image(path)[None] for path in paths)
    large = torch.nn.functional.interpolate(second, size=(1024, 768), mode="bicubic").clamp(0, 1)
    return [first, large, third[..., :60, :90]]


def test_all_ways_of_inference_give_the_same_numbers(model, exports, images, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # OpenVINOInferencer writes its cache where it is started
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    ways = {
        "TorchInferencer": TorchInferencer(exports["torch"], device="cpu").predict,
        "safetensors": lambda image: load_artifact(exports["torch"].parent)(image[None]),
        "ONNX Runtime": lambda image: ExportedModel(exports["onnx"])(image[None].numpy()),
        "OpenVINOInferencer": OpenVINOInferencer(exports["openvino"], device="CPU", config=F32).predict,
        "OpenVINOInferencer, FP16": OpenVINOInferencer(exports["FP16"], device="CPU", config=F32).predict,
    }
    for image in images:
        with torch.no_grad():
            expected = model.post_processor(model.model(model.pre_processor.transform(image)))
        for name, predict in ways.items():
            found = fields_of(predict(image[0]))
            tolerance = 5e-3 if "FP16" in name else 1e-3
            np.testing.assert_allclose(found["anomaly_map"], expected.anomaly_map, atol=tolerance, err_msg=name)
            np.testing.assert_allclose(found["pred_score"], expected.pred_score, atol=tolerance, err_msg=name)
            if abs(expected.pred_score.item() - 0.5) > tolerance:
                assert bool(found["pred_label"]) == bool(expected.pred_label), name


def fields_of(predictions) -> dict[str, np.ndarray]:
    """Return predictions of any kind as arrays, the map as ``(1, 1, H, W)``."""
    if not isinstance(predictions, dict):
        names = ("anomaly_map", "pred_score", "pred_label")
        predictions = {name: getattr(predictions, name) for name in names}
    values = {name: value.detach() if hasattr(value, "detach") else value for name, value in predictions.items()}
    arrays = {name: np.asarray(value) for name, value in values.items()}
    arrays["anomaly_map"] = arrays["anomaly_map"].reshape(1, 1, *arrays["anomaly_map"].shape[-2:])
    arrays["pred_score"] = arrays["pred_score"].reshape(1)
    return arrays


def test_graph_has_neither_text_tower_nor_blocks_after_the_last_tapped_one(official, tmp_path) -> None:
    import onnx

    exported = onnx.load(tiny_model(official, layers=[1, 3]).to_onnx(tmp_path))
    names = [tensor.name for tensor in exported.graph.initializer]
    assert exported.opset_import[0].version >= 18
    assert any("resblocks.2." in name for name in names)
    assert not [name for name in names if "text" in name or "prompts" in name or "resblocks.3." in name]


def test_pickle_has_no_text_tower_and_the_model_keeps_its_own(model, exports) -> None:
    names = list(torch.load(exports["torch"], weights_only=False)["model"].state_dict())
    assert any("vision_encoder" in name for name in names)
    assert not [name for name in names if "prompts." in name]
    assert any("prompts.text_encoder" in name for name in model.state_dict())


@pytest.mark.parametrize("kind", [CompressionType.INT8_PTQ, CompressionType.INT8_ACQ])
def test_quantised_transformer_keeps_the_order_of_scores(model, sample_data, images, tmp_path, kind) -> None:
    import openvino

    path = model.to_openvino(tmp_path, compression_type=kind, datamodule=sample_datamodule(sample_data))
    kinds = [node.get_type_name() for node in openvino.Core().read_model(path).get_ops()]
    assert kinds.count("FakeQuantize") > 10
    quantised = ExportedModel(path)
    paths = sorted((sample_data / "test").rglob("*.png"))
    batch = torch.stack([model.pre_processor.transform(read_image(file)) for file in paths])
    with torch.no_grad():
        expected = model.post_processor(model.model(batch))
    found = quantised(batch.numpy())
    assert spearmanr(found["pred_score"], expected.pred_score).statistic > 0.98
    assert np.abs(found["anomaly_map"] - expected.anomaly_map.numpy()).mean() < 0.02


def test_compressed_weights_are_smaller_and_predict_alike(model, exports, images) -> None:
    sizes = {name: exports[name].with_suffix(".bin").stat().st_size for name in ("openvino", "FP16", "INT8")}
    assert sizes["INT8"] < sizes["FP16"] < 0.6 * sizes["openvino"]
    found = ExportedModel(exports["INT8"])(images[0].numpy())
    np.testing.assert_allclose(found["anomaly_map"], model(images[0]).anomaly_map.detach(), atol=0.03)


def test_int8_without_images_says_what_to_give(model, tmp_path) -> None:
    with pytest.raises(ValueError, match="INT8_PTQ needs images to calibrate on: give --data"):
        model.to_openvino(tmp_path, compression_type=CompressionType.INT8_PTQ)
    assert not list(tmp_path.rglob("*.xml"))


def test_another_support_set_is_noticed(model, sample_data, tmp_path, caplog) -> None:
    datamodule = sample_datamodule(sample_data, seed=1)
    model.to_openvino(tmp_path, compression_type=CompressionType.INT8_PTQ, datamodule=datamodule)
    assert "another support set than the training had" in caplog.text
    assert "'seed': 0" in caplog.text


def test_model_card_tells_what_is_known(model, exports, checkpoint, sample_data) -> None:
    datamodule = sample_datamodule(sample_data)
    datamodule.setup("fit")
    metrics = json.loads(checkpoint.with_suffix(".metrics.json").read_text())["metrics"]
    threshold = f"| image | {model.post_processor.image_threshold.item():.6g} |"
    for path in exports.values():
        card = (path.parent / "MODEL_CARD.md").read_text()
        assert card.startswith("# MediCLIP on MedicalFolder")
        assert f"| SHA-256 of the support set | {datamodule.support_set_hash} |" in card
        for row in ("| normal images trained on (k) | 8 |", "| seed of the draw | 0 |", "| epochs | 8 |", threshold):
            assert row in card
        assert f"| image_AUROC | {metrics['image_AUROC']} |" in card
        assert f"| images | {len(datamodule.test_data)} |" in card
        assert f"| hash of the weights | {model.hash_learnt()} |" in card
        assert "Not a medical device" in card
        assert f"| torch | {torch.__version__.split('+')[0]}" in card
        assert "not recorded |" not in card.split("## Versions")[0]


def test_checkpoint_without_record_still_loads_and_the_card_says_so(checkpoint, tmp_path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["training_record"]
    torch.save(content, tmp_path / "old.ckpt")
    path = MediCLIP.load_from_checkpoint(tmp_path / "old.ckpt").to_torch(tmp_path)
    card = (path.parent / "MODEL_CARD.md").read_text()
    assert "| data set | not recorded |" in card
    assert "| all | not recorded |" in card


@pytest.mark.parametrize("changed", ["model.adapters.0.weight", "post_processor._image_threshold"])
def test_metrics_of_other_weights_or_thresholds_are_not_taken_for_its_own(checkpoint, tmp_path, changed) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"][changed] *= 1.01
    torch.save(content, tmp_path / "model.ckpt")
    (tmp_path / "model.metrics.json").write_bytes(checkpoint.with_suffix(".metrics.json").read_bytes())
    assert MediCLIP.load_from_checkpoint(tmp_path / "model.ckpt").training_record["test"] == {}
    assert MediCLIP.load_from_checkpoint(checkpoint).training_record["test"]["metrics"]["image_AUROC"] > 0


def test_exported_and_loaded_models_predict_plain_tensors(exports) -> None:
    images = torch.rand(1, 3, 90, 70)
    for model in (load_artifact(exports["torch"].parent), torch.load(exports["torch"], weights_only=False)["model"]):
        assert model.eval()(images).anomaly_map.numpy().shape == (1, 1, *model.image_size)


def test_compression_is_also_known_by_its_name(model, tmp_path) -> None:
    path = model.to_openvino(tmp_path, compression_type="INT8")
    assert "OpenVINO INT8" in (path.parent / "MODEL_CARD.md").read_text()


def test_uncalibrated_model_is_exported_with_a_warning(official, tmp_path, caplog) -> None:
    path = tiny_model(official).to_torch(tmp_path)
    assert "The scores are not calibrated" in caplog.text
    assert "Resume the training with --ckpt_path" in caplog.text
    assert "Then export again" in caplog.text
    assert "| image | none: the model is not calibrated |" in (path.parent / "MODEL_CARD.md").read_text()


def test_calibrated_model_is_exported_without_warning(model, tmp_path, caplog, recwarn) -> None:
    with caplog.at_level(logging.WARNING):
        model.to_openvino(tmp_path, compression_type=CompressionType.INT8)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [str(warning.message) for warning in recwarn if warning.category is UserWarning]


def test_checkpoint_of_another_version_is_refused(checkpoint, tmp_path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["options"]["hyperbolic"] = True
    content["training_record"]["versions"]["anomalib-mediclip"] = "9.9"
    torch.save(content, tmp_path / "new.ckpt")
    with pytest.raises(ValueError, match=r"another version of anomalib-mediclip \(9\.9; .*hyperbolic"):
        MediCLIP.load_from_checkpoint(tmp_path / "new.ckpt")


def edited(folder: Path, source: Path, **changes) -> Path:
    """Copy an artefact with another description."""
    (folder / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    content = json.loads((source / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(content | changes))
    return folder


def test_artefact_holds_no_encoder_and_no_pickle(exports) -> None:
    from safetensors import safe_open

    with safe_open(exports["torch"].with_suffix(".safetensors"), "pt") as tensors:
        names = list(tensors.keys())
    assert "model.prompt_features" in names
    assert "post_processor._image_threshold" in names
    assert not [name for name in names if "vision_encoder" in name or "text_encoder" in name]
    content = json.loads(exports["torch"].with_suffix(".json").read_text())
    assert content["frozen_encoder"]["hash"]
    assert content["versions"]["anomalib-mediclip"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2, "versions": {"anomalib-mediclip": "9.9"}}, r"format 2, .* reads format 1.* 9\.9"),
        ({"model": "PatchCore"}, "describes a 'PatchCore'"),
    ],
)
def test_artefact_of_another_version_is_refused(exports, tmp_path, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        load_artifact(edited(tmp_path, exports["torch"].parent, **changes))


def test_artefact_over_another_encoder_is_refused(exports, tmp_path) -> None:
    source = exports["torch"].parent
    encoder = json.loads((source / "model.json").read_text())["frozen_encoder"] | {"hash": "0" * 32}
    with pytest.raises(ValueError, match="other weights of"):
        load_artifact(edited(tmp_path, source, frozen_encoder=encoder))


def test_incomplete_artefacts_are_named(exports, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json does not exist"):
        load_artifact(tmp_path)
    edited(tmp_path, exports["torch"].parent)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_artifact(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="copy both"):
        load_artifact(tmp_path)
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(ValueError, match="not the description"):
        load_artifact(tmp_path)
