# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""One exported file takes images of any size and number, as the formats' own runtimes run it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.io import read_image
from tests.helpers.lite import as_trained, lite_model

SHAPES = [(1, 3, 224, 224), (4, 3, 300, 500), (1, 3, 1024, 768)]


@pytest.fixture(scope="module")
def model() -> MediCLIP:
    return lite_model()


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def exported(request, model: MediCLIP, tmp_path_factory) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    path = Engine(logger=False).export(model, request.param, export_root=tmp_path_factory.mktemp("export"))
    if request.param == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(names, {"input": images}), strict=True))
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: {key.any_name: value for key, value in compiled(images).items()}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_every_output_agrees_with_torch(shape, model, exported, sample_data: Path) -> None:
    images = real_images(sample_data, shape)
    expected = as_trained(model, images)
    predicted = exported(images.numpy())
    np.testing.assert_allclose(predicted["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
    np.testing.assert_allclose(predicted["pred_score"], expected.pred_score.numpy(), atol=1e-3)
    assert predicted["pred_label"].tolist() == expected.pred_label.tolist()
    differing = predicted["pred_mask"] != expected.pred_mask.numpy()
    assert differing.mean() < 1e-3


def real_images(sample_data: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """Return slices enlarged to a shape, with detail finer than the model's input size can hold."""
    from torchvision.transforms.v2.functional import resize

    paths = sorted((sample_data / "test" / "abnormal").glob("*.png"))[: shape[0]]
    images = torch.stack([resize(read_image(path), list(shape[-2:]), antialias=True) for path in paths])
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return (0.8 * images + 0.2 * noise).clamp(0, 1)
