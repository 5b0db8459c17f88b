# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Faster frozen backbones against timm's own."""

import copy

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from anomalib_mediclip.encoders.folding import HalvingConv2d, fold
from anomalib_mediclip.encoders.timm_encoder import TimmVisionEncoder
from anomalib_mediclip.encoders.weights import freeze, weights_hash
from anomalib_mediclip.models import MediCLIP, SimpleNet

LITE = "timm/tf_efficientnet_lite0.in1k"


def used(backbone: nn.Module) -> nn.Module:
    """Give every batch normalisation statistics and weights as training leaves them."""
    generator = torch.Generator().manual_seed(0)
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.weight.data.uniform_(0.5, 1.5, generator=generator)
            norm.bias.data.normal_(0, 0.2, generator=generator)
    return freeze(backbone)


def change(expected: torch.Tensor, found: torch.Tensor) -> float:
    return ((expected - found).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet18", "densenet121", "resnetv2_50", "mobilenetv3_small_100"]
)
@pytest.mark.parametrize("size", [(224, 224), (101, 130)])
def test_features_change_by_rounding_only(name, size) -> None:
    torch.manual_seed(0)
    backbone = used(timm.create_model(name, features_only=True))
    before = copy.deepcopy(backbone.state_dict())
    folded = fold(backbone, torch.rand(1, 3, 224, 224))
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    images = torch.randn(2, 3, *size)
    for expected, found in zip(backbone(images), folded(images), strict=True):
        assert change(expected, found) < 1e-5


def test_no_batch_normalisation_is_left_in_the_lite_encoder() -> None:
    tower = MediCLIP(LITE, None, [3, 4, 5], prompt="prototype").model.vision_encoder.tower
    assert not any(isinstance(module, nn.BatchNorm2d | Conv2dSame) for module in tower.modules())


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("size", [(16, 16), (17, 17), (16, 17), (17, 16)])
def test_halving_pads_as_tensorflow_does(side, size) -> None:
    conv = Conv2dSame(4, 4, side, stride=2, groups=4, bias=True)
    features = torch.randn(2, 4, *size)
    torch.testing.assert_close(HalvingConv2d(conv)(features), conv(features), atol=1e-6, rtol=0)


def test_a_backbone_that_runs_its_modules_in_another_order_is_left_alone() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [self.conv(self.norm(images))]

    backbone = used(Reversed())
    assert fold(backbone, torch.rand(1, 3, 8, 8)) is backbone


def test_encoder_is_still_recognised_by_the_weights_as_published() -> None:
    published = TimmVisionEncoder(LITE, None, [3, 4, 5], (224, 224))
    assert SimpleNet(LITE, None, [3, 4, 5]).encoder_hash == weights_hash(published)
    named = weights_hash(nn.ModuleList([published]))
    assert MediCLIP(LITE, None, [3, 4, 5], prompt="prototype").encoder_hash == named


def test_maps_change_by_rounding_only() -> None:
    model = MediCLIP(LITE, None, [3, 4, 5], prompt="prototype").model.eval()
    plain = copy.deepcopy(model)
    plain.vision_encoder = TimmVisionEncoder(LITE, None, [3, 4, 5], (224, 224))
    images = torch.rand(2, 3, 224, 224)
    assert change(plain(images).anomaly_map, model(images).anomaly_map) < 1e-5


def test_images_do_not_depend_on_their_batch() -> None:
    encoder = MediCLIP(LITE, None, [3, 4, 5], prompt="prototype").model.vision_encoder
    images = torch.rand(9, 3, 224, 224)  # more than are run at once
    for together, alone in zip(encoder(images), encoder(images[7:8]), strict=True):
        assert change(alone[0], together[7]) < 1e-5
