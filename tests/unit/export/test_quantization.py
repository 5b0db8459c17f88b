# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images of the calibration, and operators that stay in float."""

import pytest
import torch

from anomalib_mediclip import MedicalAnomalyGenerator, MediCLIP
from anomalib_mediclip.export.quantization import calibration_images, kept_in_float, painted_images

FROZEN = tuple(f"{name}." for name in MediCLIP.FROZEN)
SUPPORT = [torch.full((3, 64, 64), 0.2 + 0.1 * index) + 0.05 * torch.rand(3, 64, 64) for index in range(3)]


def test_calibration_images_are_the_support_set_and_paintings_on_it() -> None:
    images = calibration_images(SUPPORT, MedicalAnomalyGenerator(), number=9)
    assert len(images) == 9
    assert all(torch.equal(image, original) for image, original in zip(images, SUPPORT, strict=False))
    for position, image in enumerate(images[3:]):
        changed = (image != SUPPORT[position % 3]).any(dim=0)
        assert 0 < changed.float().mean() < 0.9


def test_calibration_images_are_reproducible_and_all_different() -> None:
    first, second = (calibration_images(SUPPORT, MedicalAnomalyGenerator(), number=12) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({image.numpy().tobytes() for image in first}) == 12


def test_validation_images_are_not_those_of_the_calibration() -> None:
    painted = painted_images(SUPPORT, MedicalAnomalyGenerator())
    calibrated = {image.numpy().tobytes() for image in calibration_images(SUPPORT, MedicalAnomalyGenerator(), 131)[3:]}
    assert not calibrated & {item.image.numpy().tobytes() for item in painted if item.label}
    assert [item.label for item in painted] == [False] * 3 + [True] * 128
    assert all(bool(item.mask.any()) == item.label for item in painted)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory):
    """Return the OpenVINO model of a small convolutional encoder with depthwise convolutions."""
    openvino = pytest.importorskip("openvino")
    model = MediCLIP("timm/tf_efficientnet_lite0", None, layers=[3, 4], image_size=(64, 64), prompt="prototype")
    return openvino.Core().read_model(model.to_openvino(tmp_path_factory.mktemp("export")))


def named(graph, kind: str) -> list[str]:
    return [node.get_friendly_name() for node in graph.get_ordered_ops() if node.get_type_name() == kind]


@pytest.mark.slow
def test_encoder_is_quantised_and_what_surrounds_it_is_not(graph) -> None:
    kept = set(kept_in_float(graph, FROZEN))
    convolutions = named(graph, "Convolution")
    adapters = [name for name in convolutions if name in kept][1:]
    assert len(adapters) == 2
    assert len(set(convolutions) - kept) > 20
    assert set(named(graph, "GroupConvolution")) <= kept
    assert set(named(graph, "MatMul")) <= kept  # resizing and upsampling
    assert set(named(graph, "Sigmoid")) <= kept
    assert "anomaly_map" in kept
