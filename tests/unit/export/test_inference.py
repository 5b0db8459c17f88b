# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images that exported models refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.export import ExportedModel, inference
from anomalib_mediclip.export.inference import require
from anomalib_mediclip.io.array import MAX_PIXELS, check_images

GOOD = np.random.default_rng(0).random((2, 3, 40, 50), dtype=np.float32)

WRONG = [
    ((GOOD * 255).astype(np.uint8), TypeError, r"uint8.*Divide 8-bit values by 255"),
    (GOOD * 255, ValueError, r"range from .* to 25\d.*Divide them by 255"),
    ((GOOD - 0.5) / 0.25, ValueError, "Do not normalise"),
    (np.where(GOOD > 0.5, np.nan, GOOD), ValueError, "NaN"),
    (GOOD[:, :1], ValueError, "1 channel, .*Repeat the grey channel"),
    (np.concatenate([GOOD, GOOD[:, :1]], axis=1), ValueError, "4 channels, .*Drop the alpha"),
    (GOOD.transpose(0, 2, 3, 1), ValueError, "channels second"),
    (GOOD[0], ValueError, r"shape \(3, 40, 50\).*\(B, 3, H, W\)"),
    (GOOD[:0], ValueError, "between 1 and"),
    (np.broadcast_to(np.float32(0), (1, 3, 2**14, MAX_PIXELS // 2**14 + 1)), ValueError, "smaller first"),
]


@pytest.mark.parametrize(("images", "error", "message"), WRONG)
def test_wrong_images_are_refused_with_cause_and_cure(images, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_images(images)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_right_images_pass(dtype) -> None:
    check_images(GOOD.astype(dtype))
    check_images(np.clip(GOOD, 0, 1) * (1 + 5e-4))  # an interpolation that overshot


def test_a_model_called_from_python_refuses_the_same() -> None:
    model = MediCLIP("timm/resnet18", None, layers=[2, 3], image_size=(64, 64), prompt="prototype").eval()
    assert model(torch.from_numpy(GOOD)).anomaly_map.shape == (2, 1, 64, 64)
    with pytest.raises(ValueError, match="Divide them by 255"):
        model(torch.from_numpy(GOOD * 255))


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(
        ModuleNotFoundError, match=r"Running needs no_such_package: pip install 'anomalib-mediclip\[openvino\]'"
    ):
        require("torch", "no_such_package", purpose="Running")


def test_exports_say_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent = {"onnxscript", "nncf"}
    found = inference.find_spec
    monkeypatch.setattr(inference, "find_spec", lambda name: None if name in absent else found(name))
    model = MediCLIP("timm/resnet18", None, layers=[2, 3], image_size=(64, 64), prompt="prototype")
    with pytest.raises(
        ModuleNotFoundError, match=r"ONNX needs onnxscript: pip install 'anomalib-mediclip\[openvino\]'"
    ):
        model.to_onnx(tmp_path)
    absent.discard("onnxscript")
    from anomalib.deploy import CompressionType

    with pytest.raises(ModuleNotFoundError, match="OpenVINO needs nncf"):
        model.to_openvino(tmp_path, compression_type=CompressionType.INT8)


@pytest.mark.parametrize("name", ["model.pt", "model"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"give model\.onnx or model\.xml"):
        ExportedModel(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ExportedModel(tmp_path / "model.onnx")


def test_processes_side_by_side_are_not_bound_to_the_same_cores(tmp_path: Path) -> None:
    model = MediCLIP("timm/resnet18", None, layers=[2, 3], image_size=(64, 64), prompt="prototype").eval()
    exported = ExportedModel(model.to_openvino(tmp_path), threads=1)
    assert exported._run._compiled.get_property("ENABLE_CPU_PINNING") is False


@pytest.mark.parametrize("ending", ["onnx", "openvino"])
def test_a_stream_gives_what_calls_give_in_their_order(tmp_path: Path, ending: str) -> None:
    model = MediCLIP("timm/resnet18", None, layers=[2, 3], image_size=(64, 64), prompt="prototype").eval()
    path = model.to_onnx(tmp_path) if ending == "onnx" else model.to_openvino(tmp_path)
    random = np.random.default_rng(0)
    images = [random.random((1, 3, 30 + 7 * index, 50), dtype=np.float32) for index in range(9)]
    one, several = ExportedModel(path, threads=1), ExportedModel(path, threads=3)
    called = [one(image) for image in images]
    streamed = list(several.stream(iter(images)))
    assert len(streamed) == len(images)
    for expected, found in zip(called, streamed, strict=True):
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)
    with pytest.raises(ValueError, match="Divide them by 255"):
        list(several.stream([images[0], images[1] * 255]))
