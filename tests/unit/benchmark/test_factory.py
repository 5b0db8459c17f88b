# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Models and data modules from a configuration."""

from pathlib import Path

import pytest

from anomalib_mediclip.benchmark import factory
from anomalib_mediclip.benchmark.factory import build_datamodule, build_model

TINY = {"class_path": "SimpleNet", "init_args": {"encoder": "timm/resnet18", "weights": None, "image_size": [64, 64]}}


def test_models_are_bare_and_get_the_seed() -> None:
    model = build_model(TINY, seed=7)
    assert model.hparams["seed"] == 7
    assert model.hparams["image_size"] == (64, 64)
    assert model.post_processor is None
    assert model.visualizer is None
    assert model.pre_processor is not None


def test_models_without_a_seed_are_built_too() -> None:
    specification = {"class_path": "Patchcore", "init_args": {"backbone": "resnet18", "pre_trained": False}}
    assert build_model(specification, seed=7).name == "Patchcore"


@pytest.mark.parametrize(
    ("model", "init_args", "expected"),
    [
        ("Patchcore", {"backbone": "tf_efficientnet_lite0"}, 1),
        ("Patchcore", {"backbone": "tf_efficientnet_lite0.in1k"}, 1),
        ("Patchcore", {"backbone": "timm/tf_efficientnet_lite0"}, 1),
        ("Patchcore", {"backbone": "timm/tf_efficientnet_lite0.in1k"}, 1),
        ("Patchcore", {"backbone": "resnet18", "layers": ["layer2"]}, 0),
        ("Patchcore", {"backbone": "tf_efficientnet_lite1"}, 0),
        ("Patchcore", None, 0),
        ("SimpleNet", {"encoder": "timm/tf_efficientnet_lite0.in1k"}, 0),
        ("MediCLIP", {"encoder": "timm/tf_efficientnet_lite0"}, 0),
    ],
)
def test_lite_weights_go_into_the_hub_cache_only_for_models_of_others_that_name_them(
    monkeypatch: pytest.MonkeyPatch, model: str, init_args: dict | None, expected: int
) -> None:
    written = []
    monkeypatch.setattr(factory, "write_lite_weights_into_hub_cache", lambda: written.append(1))
    monkeypatch.setattr(factory, "_build", lambda *_: None)  # only the decision, without building a model
    build_model({"class_path": model} | ({} if init_args is None else {"init_args": init_args}), seed=0)
    assert len(written) == expected


def test_the_configuration_is_left_as_it_is() -> None:
    transform = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64]}}
    processor = {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": transform}}
    specification = {"class_path": "SimpleNet", "init_args": {**TINY["init_args"], "pre_processor": processor}}
    build_model(specification, seed=0)
    assert type(processor["init_args"]["transform"]) is dict  # or jobs could not be told apart


def test_support_set_is_that_of_k_and_seed_although_they_pass_through_a_base_class(sample_data: Path) -> None:
    specification = {"class_path": "MedicalFolder", "init_args": {"root": str(sample_data)}}
    first, again, other = (build_datamodule(specification, 4, seed) for seed in (0, 0, 1))
    assert len(first.support_set) == 4
    assert first.support_set_hash == again.support_set_hash != other.support_set_hash
    assert len(build_datamodule(specification, 8, 0).support_set) == 8


@pytest.mark.parametrize("name", ["Patchcor", "no.such.package.Model", "BUSI"])
def test_models_that_do_not_exist_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"no AnomalibModule named '{name}'"):
        build_model({"class_path": name}, seed=0)


def test_arguments_that_do_not_exist_are_named() -> None:
    with pytest.raises(Exception, match="backbon"):
        build_model({"class_path": "Patchcore", "init_args": {"backbon": "resnet18"}}, seed=0)
