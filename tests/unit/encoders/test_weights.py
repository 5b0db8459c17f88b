# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Packaged weights of the lite encoder."""

from pathlib import Path

import pytest
import timm
import torch

from anomalib_mediclip.benchmark.factory import build_model
from anomalib_mediclip.encoders.timm_encoder import TimmVisionEncoder
from anomalib_mediclip.encoders.weights import (
    LITE_ENCODER,
    PACKAGED,
    read_packaged_weights,
    weights_hash,
    write_lite_weights_into_hub_cache,
)

SPECIFICATION = {
    "class_path": "anomalib.models.Patchcore",
    "init_args": {"backbone": "resnet18", "layers": ["layer1"], "pre_trained": False},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty Hugging Face cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_the_encoder_reads_them_from_the_package_and_writes_nothing(cache: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    encoder = TimmVisionEncoder(f"timm/{LITE_ENCODER}", "pretrained", [3, 4, 5], (64, 64))
    assert torch.equal(torch.rand(4), expected)  # the global generator is left alone
    assert not list(cache.iterdir())
    weights = read_packaged_weights(LITE_ENCODER)
    assert torch.equal(encoder.tower.conv_stem.weight, weights["conv_stem.weight"])
    assert weights_hash(encoder) == "60295e6214913ad21f7b063cfa2d4963"  # by which checkpoints recognise it
    assert "state_dict" not in encoder.tower.default_cfg


@pytest.mark.parametrize("encoder", PACKAGED)
def test_packaged_weights_are_those_of_a_trained_network(cache: Path, encoder: str) -> None:
    model = timm.create_model(encoder)
    model.load_state_dict(read_packaged_weights(encoder))
    size = model.default_cfg["input_size"][1:]
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij")
    disc = (rows.square() + columns.square() < 0.4).float()
    image = torch.stack([disc, 0.55 * disc, 0.1 * disc])[None] + 0.05  # an orange disc on black
    mean, std = (torch.tensor(model.default_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        probabilities = model.eval()((image - mean) / std).softmax(dim=1)
    assert probabilities.max() > 20 / 1000  # random weights give all 1000 classes about the same
    assert not list(cache.iterdir())


def test_written_into_the_cache_they_are_found_by_timm(cache: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        write_lite_weights_into_hub_cache()
    (file,) = cache.rglob("model.safetensors")
    assert str(file) in caplog.text
    before = file.stat().st_mtime_ns
    write_lite_weights_into_hub_cache()
    assert file.stat().st_mtime_ns == before
    model = timm.create_model(LITE_ENCODER, pretrained=True, cache_dir=cache)
    assert torch.equal(model.conv_stem.weight, read_packaged_weights(LITE_ENCODER)["conv_stem.weight"])


@pytest.mark.parametrize(("backbone", "is_written"), [("resnet18", False), ("tf_efficientnet_lite0", True)])
def test_a_benchmark_writes_them_only_for_models_of_anomalib_on_that_backbone(
    cache: Path, backbone: str, is_written: bool
) -> None:
    layers = {"resnet18": ["layer1"], "tf_efficientnet_lite0": ["blocks.1"]}[backbone]
    init_args = {**SPECIFICATION["init_args"], "backbone": backbone, "layers": layers}
    build_model({**SPECIFICATION, "init_args": init_args}, seed=0)
    assert bool(list(cache.rglob("model.safetensors"))) == is_written


def test_a_benchmark_writes_nothing_for_the_models_of_the_plugin(cache: Path) -> None:
    options = {"encoder": f"timm/{LITE_ENCODER}", "weights": "pretrained", "layers": [3], "prompt": "prototype"}
    build_model({"class_path": "MediCLIP", "init_args": options}, seed=0)
    assert not list(cache.iterdir())
