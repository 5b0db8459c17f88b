# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Backbones that learn against timm's own, and what stays as it was."""

import pytest
import timm
import torch
from torch import nn

from anomalib_mediclip.encoders.staged_encoder import StagedEncoder

LITE = "timm/tf_efficientnet_lite0.in1k"


def encoder(**options) -> StagedEncoder:
    return StagedEncoder(
        **{"encoder": "timm/resnet18", "weights": None, "layers": 4, "image_size": (64, 64), **options}
    )


@pytest.mark.parametrize(("name", "layers"), [("timm/resnet18", 5), (LITE, 4), ("timm/wide_resnet50_2", 3)])
def test_stages_return_what_the_backbone_returns(name, layers) -> None:
    staged = encoder(encoder=name, layers=layers).eval()
    backbone = timm.create_model(name.removeprefix("timm/"), features_only=True, out_indices=list(range(layers))).eval()
    names = [n for n in backbone.state_dict() if not n.startswith(("blocks.5", "blocks.6"))]  # after the last stage
    backbone.load_state_dict(dict(zip(names, staged.stages.state_dict().values(), strict=False)), strict=False)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(backbone.default_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        for found, expected in zip(staged(images), backbone((images - mean) / std), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert staged.channels == backbone.feature_info.channels()


def test_only_the_stages_that_learn_have_gradients_and_leave_evaluation_mode() -> None:
    staged = encoder(learning=2)
    learning = [all(p.requires_grad for p in stage.parameters()) for stage in staged.stages]
    assert learning == [False, False, True, True]
    staged.train()
    assert [stage.training for stage in staged.stages] == learning
    assert not any(module.training for module in staged.modules() if isinstance(module, nn.BatchNorm2d))
    assert not any(module.training for module in staged.eval().modules())


def test_where_all_stages_learn_batch_normalisation_uses_the_batch() -> None:
    staged = encoder(learning="all")
    staged.train()
    norms = [module for module in staged.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.training for norm in norms)
    before = norms[0].running_mean.clone()
    staged(torch.rand(2, 3, 64, 64))
    assert not torch.equal(before, norms[0].running_mean)


def test_stages_that_do_not_learn_keep_their_bits_in_a_step() -> None:
    staged = encoder(learning=1)
    before = {name: value.clone() for name, value in staged.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in staged.parameters() if p.requires_grad], lr=0.1)
    staged.train()
    staged(torch.rand(2, 3, 64, 64))[-1].square().mean().backward()
    optimizer.step()
    changed = {name for name, value in staged.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("stages.3.") and "running" not in name for name in changed)


def test_random_weights_follow_the_seed_and_normalisation_can_be_left_out() -> None:
    images = torch.rand(1, 3, 64, 64)
    first, again, other = (encoder(seed=seed).eval()(images)[-1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    plain = encoder(normalise=False)
    assert torch.equal(plain.normalised(images), images)


def test_backbones_that_are_no_chain_and_wrong_numbers_of_stages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"is no chain of stages|does not take images"):
        encoder(encoder="timm/vit_tiny_patch16_224", layers=2)
    with pytest.raises(ValueError, match="5 stages shall learn"):
        encoder(learning=5)
