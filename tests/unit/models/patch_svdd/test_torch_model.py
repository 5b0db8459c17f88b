# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patch SVDD as a whole: loss, collapse, textures, options without meaning."""

import math

import pytest
import torch

from anomalib_mediclip import PatchSVDD, PatchSVDDModel
from anomalib_mediclip.evaluation import exact_auroc
from anomalib_mediclip.models.patch_svdd.loss import PatchSVDDLoss
from anomalib_mediclip.seeds import generator_of

TINY = {"image_size": (128, 128), "embedding_dim": 16, "strides": (32, 16)}


def fitted(images: torch.Tensor, **options) -> PatchSVDDModel:
    model = PatchSVDDModel(**{**TINY, **options}).eval()
    with torch.no_grad():
        model.fit(images, seed=0)
    return model


def test_a_support_image_scores_zero_everywhere_and_others_do_not() -> None:
    images = torch.rand(3, 3, 128, 128)
    model = fitted(images)
    with torch.no_grad():
        predictions = model(images)
        assert predictions.anomaly_map.abs().max() == 0
        assert predictions.pred_score.tolist() == [0, 0, 0]
        own = torch.arange(3)
        assert (model(images, own).pred_score > 0).all()
        assert (model(torch.rand(1, 3, 128, 128)).pred_score > 0).all()


@pytest.mark.parametrize("subtract", ["mean_colour", "mean_image"])
def test_the_mean_of_the_support_set_is_subtracted(subtract) -> None:
    images = torch.rand(4, 3, 128, 128)
    model = fitted(images, subtract=subtract)
    expected = images.mean(dim=(0, 2, 3)).view(3, 1, 1) if subtract == "mean_colour" else images.mean(dim=0)
    torch.testing.assert_close(model.mean, expected)
    assert model.mean.shape == ((3, 1, 1) if subtract == "mean_colour" else (3, 128, 128))


def test_a_square_of_another_texture_is_found_by_the_random_encoder() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(128.0)
    stripes = 0.5 + 0.4 * (rows / 2).sin()[:, None].expand(128, 128)

    def image() -> torch.Tensor:
        return (stripes.roll(int(torch.randint(12, (), generator=generator)), 0)).expand(3, 128, 128).clone()

    model = fitted(torch.stack([image() for _ in range(8)]), strides=(16, 4))
    seen, mask = image(), torch.zeros(128, 128)
    mask[40:88, 40:88] = 1
    seen[:, mask > 0] = stripes.T.expand(3, 128, 128)[:, mask > 0]  # the same stripes, turned
    with torch.no_grad():
        anomaly_map = model(seen[None]).anomaly_map
    assert exact_auroc(anomaly_map.flatten(), mask.flatten()) > 0.9


def test_loss_is_the_cross_entropy_plus_the_weighted_mean_distance() -> None:
    logits, directions = torch.randn(5, 8, dtype=torch.float64), torch.tensor([0, 3, 7, 7, 1])
    first, second = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    cross_entropy = -sum(logits[i].softmax(0)[d].log() for i, d in enumerate(directions)) / 5
    distance = sum(math.dist(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)) / 6
    for weight in (0.0, 0.3):
        found = PatchSVDDLoss(weight)(logits, directions, first, second)
        assert found.item() == pytest.approx(cross_entropy.item() + weight * distance)


def test_gradients_are_finite_where_both_patches_are_the_same() -> None:
    first = torch.ones(2, 4, requires_grad=True)
    PatchSVDDLoss(1.0)(torch.zeros(1, 8), torch.tensor([0]), first, torch.ones(2, 4)).backward()
    assert first.grad.isfinite().all()


def test_a_constant_encoder_has_no_distances_and_a_loss_that_the_images_do_not_change() -> None:
    module = PatchSVDD(**TINY, pairs=4)
    module.log = lambda *_, **__: None
    module.generator_of_batch = generator_of
    for parameter in (*module.model.small_encoder.parameters(), *module.model.large_encoder.parameters()):
        torch.nn.init.zeros_(parameter)
    module.model.statistics = fitted(torch.rand(2, 3, 128, 128)).statistics
    losses = [
        module.training_step(batch(image)).item() for image in (torch.rand(2, 3, 128, 128), torch.zeros(2, 3, 128, 128))
    ]
    assert losses[0] == losses[1]
    with torch.no_grad():
        module.model.fit(torch.rand(2, 3, 128, 128), seed=0)
    assert module.model.statistics.spreads == (0, 0)
    assert module.model.eval()(torch.rand(1, 3, 128, 128)).pred_score.item() == 0


def batch(images: torch.Tensor):
    return type("Batch", (), {"image": images, "batch_size": len(images)})()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (130, 128)}, r"image_size=\(130, 128\).*Use \(128, 128\) or \(160, 160\)"),
        ({"image_size": (32, 128), "keep_inside": False}, r"Use \(64, 128\)"),
        ({"strides": (16, 6)}, "the second must be 2, 4, 8, 16 or 32"),
        ({"strides": (12, 8)}, "the first a multiple of it"),
        ({"image_size": (96, 128)}, r"two neighbouring patches of 64 pixels do not fit.*keep_inside false"),
        ({"pairs": 0}, "there must be a pair"),
        ({"svdd_weight": -1.0}, "must not be negative"),
        ({"subtract": "median"}, "subtract='median': use mean_colour or mean_image"),
        ({"combine": "mean"}, "combine='mean'"),
    ],
)
def test_options_without_meaning_are_refused_with_the_cure(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        PatchSVDD(**{**TINY, **options})


def test_an_empty_bank_says_so() -> None:
    with pytest.raises(RuntimeError, match="The memory bank is empty"):
        PatchSVDDModel(**TINY).eval()(torch.rand(1, 3, 128, 128))
