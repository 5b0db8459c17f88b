# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Configurations of Patch SVDD and of its controls, and images without anything to see."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml

from anomalib_mediclip import PatchSVDD
from anomalib_mediclip.models.patch_svdd.networks import DirectionClassifier
from anomalib_mediclip.seeds import generator_of
from tests.conftest import REPOSITORY

NAMES = ("patch_svdd", "patch_svdd_lite", "patch_svdd_untrained", "patch_svdd_lite_untrained")
OFFICIAL = {
    "image_size": (256, 256),
    "svdd_weight": 1.0,
    "keep_inside": False,
    "fixed_readout": True,
    "subtract": "mean_image",
}


def configuration(name: str) -> dict:
    text = Path(REPOSITORY / "configs" / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def options_of(name: str) -> dict:
    return configuration(name)["model"]["init_args"]


def test_the_paper_is_the_default() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(PatchSVDD).parameters.items()}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options_of(NAMES[0]).items()}
    components = {"seed", "pre_processor", "post_processor", "evaluator", "visualizer"}
    assert given == {name: value for name, value in defaults.items() if name not in components}
    assert configuration(NAMES[0])["trainer"] == {"max_steps": PatchSVDD.MAX_STEPS}


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_control_differs_in_nothing_but_that_it_does_not_train(name) -> None:
    trained, control = PatchSVDD(**options_of(name)), PatchSVDD(**options_of(f"{name}_untrained"))
    assert (trained.trains, control.trains) == (True, False)
    of_training = trained.TRAINING_OPTIONS
    assert {key: value for key, value in trained.hparams.items() if key not in of_training} == {
        key: value for key, value in control.hparams.items() if key not in of_training
    }


def test_the_official_configuration_can_be_given() -> None:
    module = PatchSVDD(**OFFICIAL)
    assert module.model.mean.shape == (3, 256, 256)
    classifiers = [part for part in module.modules() if isinstance(part, DirectionClassifier)]
    assert [part.readout.weight.requires_grad for part in classifiers] == [False, False]
    learnt = sum(p.numel() for group in module.make_optimizer().param_groups for p in group["params"])
    assert learnt == 360_832 + 41_152 + 2 * (64 * 128 + 128 + 128 * 128 + 128 + 8)


@pytest.mark.parametrize(("strides", "large", "small"), [((16, 4), 11, 49), ((16, 8), 11, 25)])
def test_patches_of_the_default_size_are_as_many_as_the_paper_has(strides, large, small) -> None:
    model = PatchSVDD(strides=strides).model.eval()
    with torch.no_grad():
        embeddings = model.embed_images(torch.zeros(1, 3, 224, 224))
    assert [part.shape for part in embeddings] == [(1, 64, large, large), (1, 64, small, small)]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_of_one_colour_have_distances_of_zero_and_a_finite_loss(number, value) -> None:
    module = PatchSVDD(image_size=(128, 128), embedding_dim=8, strides=(32, 16), pairs=4)
    module.log = lambda *_, **__: None
    module.generator_of_batch = generator_of
    images = torch.full((number, 3, 128, 128), value)
    module.model.take_mean(images)
    batch = type("Batch", (), {"image": images, "batch_size": number})()
    loss = module.training_step(batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in module.model.parameters())
    with torch.no_grad():
        module.model.eval().fit(images, seed=0)
        for own in (None, torch.zeros(1, dtype=torch.int64)):
            predictions = module.model(images[:1], own)
            assert predictions.anomaly_map.abs().max() == 0
        painted = images[:1].clone()
        painted[..., 40:80, 40:80] = 1 - value
        assert module.model(painted, torch.zeros(1, dtype=torch.int64)).pred_score > 0
