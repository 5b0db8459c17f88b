# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CutPaste as a whole against timm, scikit-learn and autograd."""

import math

import numpy as np
import pytest
import timm
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from torch.nn import functional

from anomalib_mediclip import CutPaste, CutPasteModel
from anomalib_mediclip.models.cut_paste.anomaly_map import AnomalyMapGenerator, grad_cam
from anomalib_mediclip.models.cut_paste.density import make_density, unit_features
from anomalib_mediclip.seeds import generator_of

TINY = {"encoder": "timm/resnet18", "weights": None, "image_size": (64, 64), "layer": 3}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def fitted(images: torch.Tensor, **options) -> CutPasteModel:
    model = CutPasteModel(**{**TINY, "views": 3, **options}).eval()
    with torch.no_grad():
        model.fit(images, seed=0)
    return model


@pytest.mark.parametrize("name", ["gaussian", "kde"])
def test_map_is_grad_cam_by_autograd_and_sums_to_zero(name) -> None:
    density = make_density(name)
    density.fit(functional.normalize(torch.randn(9, 12, dtype=torch.float64), dim=1))
    feature_map = torch.rand(2, 12, 5, 4, dtype=torch.float64, requires_grad=True)
    unit, length = unit_features(feature_map)
    distance, gradient = density(unit)
    (derivative,) = torch.autograd.grad(distance.sum(), feature_map)
    weights = derivative.sum(dim=(2, 3), keepdim=True)  # Grad-CAM: averaged over positions, times their number
    expected = (weights * feature_map).sum(dim=1, keepdim=True)
    found = grad_cam(feature_map, unit, length, gradient)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert found.sum(dim=(1, 2, 3)).abs().max() < 1e-8


def test_shown_map_is_positive_keeps_the_order_of_pixels_and_scales_with_the_distance() -> None:
    contributions = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    generator, distance = AnomalyMapGenerator(), torch.tensor([2.0])
    predictions = generator(distance, contributions, (32, 32))
    relative = generator.smooth(functional.interpolate(contributions / 2, (32, 32), mode="bilinear"))
    order = relative.flatten().argsort()
    assert (predictions.anomaly_map.flatten()[order].diff() >= 0).all()
    assert predictions.anomaly_map.min() > 0
    torch.testing.assert_close(predictions.anomaly_map, 2 * torch.log1p((1 + relative).exp()))
    torch.testing.assert_close(
        generator(3 * distance, 3 * contributions, (32, 32)).anomaly_map, 3 * predictions.anomaly_map
    )
    assert generator(torch.zeros(1), contributions, (32, 32)).anomaly_map.isfinite().all()


def test_distance_does_not_change_when_features_are_scaled(images) -> None:
    model = fitted(images)
    plain = model(images).pred_score
    model.encoder.stages.append(torch.nn.Identity())
    model.encoder.stages[-1].forward = lambda features: 5 * features
    torch.testing.assert_close(model(images).pred_score, plain, rtol=1e-4, atol=1e-4)


def test_without_steps_it_is_plain_features_and_a_gaussian(images) -> None:
    model = fitted(images, train_stages=0, views=1)
    backbone = timm.create_model("resnet18", features_only=True, out_indices=[2]).eval()
    reference = dict(zip(backbone.state_dict(), model.encoder.stages.state_dict().values(), strict=True))
    backbone.load_state_dict(reference)
    mean, std = (torch.tensor(backbone.default_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    seen = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        support, vectors = (
            functional.normalize(backbone((part - mean) / std)[0].mean(dim=(2, 3)), dim=1).double().numpy()
            for part in (images, seen)
        )
        found = model(seen).pred_score
    precision = np.linalg.inv(LedoitWolf().fit(support).covariance_)
    expected = [mahalanobis(vector, support.mean(axis=0), precision) for vector in vectors]
    assert found.tolist() == pytest.approx(expected, rel=1e-3)


def test_density_sees_normal_images_only(images) -> None:
    model = CutPasteModel(**TINY, views=4, jitter=0.0, translation=0.0).eval()
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.fit(images, seed=0)
    for image, views in zip(images, seen, strict=True):
        assert torch.equal(views, image.expand(4, 3, 64, 64))


def test_views_differ_from_each_other_and_follow_the_seed(images) -> None:
    seen: list[torch.Tensor] = []
    for seed in (0, 0, 1):
        model = CutPasteModel(**TINY, views=3).eval()
        model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            model.fit(images[:1], seed=seed)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0][1], seen[0][2])
    assert not torch.equal(seen[0][1], seen[2][1])
    assert torch.equal(seen[0][0], images[0])


def test_a_support_image_is_compared_with_the_others(images) -> None:
    model = fitted(images)
    without = fitted(torch.cat([images[:2], images[3:]]), views=1)
    whole = fitted(images, views=1)
    with torch.no_grad():
        held_out = whole(images[[2, 2]], torch.tensor([2, -1])).pred_score
        torch.testing.assert_close(held_out[0], without(images[[2]]).pred_score[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(held_out[1], whole(images[[2]]).pred_score[0], rtol=1e-4, atol=1e-4)
        own = torch.arange(6)
        assert (model(images, own).pred_score > model(images).pred_score).all()
        alone = fitted(images[:1])
        assert torch.equal(alone(images[:1], own[:1]).pred_score, alone(images[:1]).pred_score)


def detach(module: CutPaste) -> None:
    """Let a step run without a trainer."""
    module.log = lambda *_, **__: None
    module.generator_of_batch = generator_of


def test_loss_is_the_logarithm_of_the_number_of_kinds_where_the_head_says_nothing() -> None:
    for variant, kinds in (("3way", 3), ("binary", 2), ("scar", 2), ("union", 2)):
        module = CutPaste(**TINY, variant=variant, originals=2)
        detach(module)
        last = module.model.head[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        module.train()
        batch = type("Batch", (), {"image": torch.rand(2, 3, 64, 64)})()
        assert module.training_step(batch).item() == pytest.approx(math.log(kinds))


def test_kinds_follow_each_other_in_the_order_of_their_labels() -> None:
    module = CutPaste(**TINY, originals=5, jitter=0.0, translation=0.0)
    support = torch.rand(2, 3, 64, 64)
    images, labels = module.pasted(support, generator_of(0))
    assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    normal, cut_pasted, scarred = images.split(5)
    assert torch.equal(normal, support[[0, 1, 0, 1, 0]])
    changed = [((part - normal).abs().amax(dim=1) > 0).float().mean(dim=(1, 2)) for part in (cut_pasted, scarred)]
    assert (changed[0] > changed[1]).all()  # 2 percent of the image at least; scars are smaller
    assert (changed[1] > 0).all()


def test_all_kinds_go_through_the_network_as_one_batch() -> None:
    module = CutPaste(**TINY, originals=3)
    detach(module)
    sizes: list[int] = []
    module.model.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    module.train()
    module.training_step(type("Batch", (), {"image": torch.rand(1, 3, 64, 64)})())
    assert sizes == [9]


def test_an_unfitted_model_says_so() -> None:
    with pytest.raises(RuntimeError, match="There is no density"):
        CutPasteModel(**TINY).eval()(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "4way"}, "variant='4way': use one of 3way, binary, scar, union"),
        ({"views": 0}, "views=0"),
        ({"originals": 0}, "originals=0"),
        ({"jitter": 0.6}, "jitter=0.6"),
        ({"translation": -0.1}, "translation=-0.1"),
        ({"train_stages": 4}, "4 stages shall learn: give 'all', or a number from 0 to 3"),
    ],
)
def test_options_without_meaning_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        CutPaste(**{**TINY, **options})
