# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Antialiased resizing in exported graphs equals torchvision's."""

import pytest
import torch
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Resize

from anomalib_mediclip.models.components.pre_processing import (
    AntialiasedResize,
    ExportablePreProcessor,
    exportable,
    resize_matrix,
)


@pytest.mark.parametrize(
    "height_and_width", [(224, 224), (32, 48), (1, 7), (225, 223), (300, 500), (1024, 768), (2048, 1500)]
)
@pytest.mark.parametrize("size", [(224, 224), (56, 80)])
def test_it_is_torchvisions_resize(height_and_width: tuple[int, int], size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *height_and_width, generator=torch.Generator().manual_seed(0))
    resize = Resize(size, interpolation=InterpolationMode.BILINEAR, antialias=True)
    # torchvision's own rounding is larger than ours: it computes positions of pixels, where we compute distances
    torch.testing.assert_close(AntialiasedResize(size)(images).double(), resize(images.double()), atol=1e-6, rtol=0)
    torch.testing.assert_close(AntialiasedResize(size)(images), resize(images), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_in_bfloat16_the_values_round_but_not_the_positions(tmp_path) -> None:
    import openvino

    path = tmp_path / "resize.onnx"
    axes = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    torch.onnx.export(AntialiasedResize((224, 224)), (torch.rand(1, 3, 32, 48),), path, dynamic_shapes=(axes,))
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    for height_and_width in ((224, 224), (300, 500), (1024, 768)):
        images = torch.rand(1, 3, *height_and_width, generator=torch.Generator().manual_seed(0))
        expected = Resize((224, 224), antialias=True)(images)
        torch.testing.assert_close(torch.from_numpy(compiled(images.numpy())[0]), expected, atol=0.02, rtol=0)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    images = torch.rand(1, 3, 56, 80)
    torch.testing.assert_close(AntialiasedResize((56, 80))(images), images, atol=0, rtol=0)


@pytest.mark.parametrize("length", [1, 5, 224, 3001])
def test_weights_are_means(length: int) -> None:
    matrix = resize_matrix(torch.arange(length), 56)
    assert matrix.min() >= 0
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(56))


def test_bilinear_antialiased_resizing_stays_so_within_a_composition() -> None:
    transform = Compose([Resize((64, 64), antialias=True), CenterCrop((56, 56))])
    images = torch.rand(1, 3, 300, 200)
    torch.testing.assert_close(exportable(transform)(images), transform(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "resize",
    [
        Resize((64, 64), antialias=False),
        Resize((64, 64), interpolation=InterpolationMode.BICUBIC),
        Resize(64, antialias=True),
    ],
)
def test_other_resizing_is_exported_as_anomalib_does(resize: Resize) -> None:
    images = torch.rand(1, 3, 300, 200)
    torch.testing.assert_close(exportable(resize)(images), PreProcessor(resize).export_transform(images))


def test_pre_processor_restored_from_a_checkpoint_still_resizes_with_antialiasing() -> None:
    saved = ExportablePreProcessor(Resize((56, 80), antialias=True)).checkpoint_config()
    restored = ExportablePreProcessor()
    restored.load_checkpoint_config(saved)
    images = torch.rand(1, 3, 300, 200)
    expected = Resize((56, 80), antialias=True)(images)
    torch.testing.assert_close(restored(images), expected, atol=1e-4, rtol=0)


def test_no_transform_stays_none() -> None:
    images = torch.rand(1, 3, 8, 8)
    assert ExportablePreProcessor()(images) is images
