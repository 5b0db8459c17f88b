# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""RegAD's network against PaDiM's formula, and what its transformers do to it."""

import math

import pytest
import torch
from anomalib.models.components import MultiVariateGaussian
from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from anomalib_mediclip.models.reg_ad import RegADModel
from anomalib_mediclip.models.reg_ad.loss import RegistrationLoss
from anomalib_mediclip.models.reg_ad.spatial_transformer import warp
from anomalib_mediclip.models.reg_ad.views import fixed_views, make_views

ALL = ("rotate", "translate", "flip", "grey", "rotate90")
TINY = {"encoder": "timm/resnet18", "weights": None, "image_size": (64, 64), "views": ["flip"]}
SMALL = {"encoder": "timm/tf_efficientnet_lite0", "weights": None, "layers": (2, 3), "image_size": (64, 64)}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(images: torch.Tensor, **options) -> RegADModel:
    model = RegADModel(**TINY | options).eval()
    with torch.no_grad():
        model.fit(images, seed=0)
    return model


def predicted(model: RegADModel, images: torch.Tensor, own: list[int] | None = None):
    with torch.no_grad():
        return model(images, None if own is None else torch.tensor(own))


def moving(model: RegADModel, angle: float = 0.0, seed: int | None = None) -> RegADModel:
    """Let the transformers of a model turn by an angle, or by angles that depend on the image."""
    with torch.no_grad():
        for transformer in model.transformers:
            output = transformer.localise[-1]
            output.bias[0] = angle
            if seed is not None:
                output.weight.copy_(
                    0.2 * torch.randn(output.weight.shape, generator=torch.Generator().manual_seed(seed))
                )
    return model


def padim_distances(model: RegADModel, support: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return distances ``(B, 1, h, w)`` by anomalib's PaDiM, on the same views and 64 channels."""
    views = torch.cat([make_views(image.expand(22, -1, -1, -1), fixed_views(ALL)) for image in support])

    def embedding(images: torch.Tensor) -> torch.Tensor:
        _, fine, coarse = model.encoder(images)
        return torch.cat([fine, functional.interpolate(coarse, fine.shape[-2:], mode="nearest")], dim=1)

    gaussian = MultiVariateGaussian()
    statistics = list(gaussian(embedding(views)))
    return AnomalyMapGenerator.compute_distance(embedding(images), statistics)


@pytest.mark.parametrize("transform", [None, "rotation_scale"])
@pytest.mark.parametrize("shots", [2, 4])  # 44 views, fewer than channels, and 88
def test_at_rest_it_is_padim_on_the_same_views(transform: str | None, shots: int) -> None:
    support, images = random(shots, 3, 64, 64), random(2, 3, 64, 64, seed=1)
    model = RegADModel(**SMALL, views=ALL, transform=transform, ridge=0.01 + 1e-5).eval()  # as anomalib has it
    with torch.no_grad():
        model.fit(support, seed=0)
        expected = padim_distances(model, support, images)
        found = model(images)
    assert (model.statistics.factor.shape[1] < 64) == (shots == 2)
    upsampled = functional.interpolate(expected, (64, 64), mode="bilinear")
    inside = slice(16, -16)  # the rest depends on what lies beyond the border
    for image in range(2):
        smooth = torch.from_numpy(gaussian_filter(upsampled[image, 0].double().numpy(), 4.0)).float()
        difference = (found.anomaly_map[image, 0] - smooth)[inside, inside].abs().max()
        assert difference < 2e-3 * smooth.max()
    assert torch.equal(found.pred_score, found.anomaly_map.amax(dim=(1, 2, 3)))


def test_transformers_at_rest_change_nothing() -> None:
    support, images = random(3, 3, 64, 64), random(2, 3, 64, 64, seed=1)
    first, second = fitted(support, transform=None), fitted(support, transform="affine")
    assert not first.transformers
    assert not first.head
    torch.testing.assert_close(
        predicted(first, images).anomaly_map, predicted(second, images).anomaly_map, atol=1e-3, rtol=1e-3
    )


def test_every_stage_gets_the_moved_map_of_the_one_before() -> None:
    model, images = moving(RegADModel(**TINY).eval(), 0.3), random(1, 3, 64, 64)
    with torch.no_grad():
        found, matrices = model._stages(images)
        features = model.encoder.stages[0](model.encoder.normalised(images))
        for stage, moved in zip(model.encoder.stages[1:], found, strict=True):
            features = warp(stage(features), matrices[0])
            torch.testing.assert_close(features, moved, atol=1e-4, rtol=1e-4)
    assert [tuple(moved.shape[1:]) for moved in found] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]


def test_maps_are_moved_back_by_the_inverse_of_all_that_moved_them() -> None:
    model = moving(RegADModel(**TINY | {"image_size": (192, 192)}).eval(), math.pi / 2)
    rest = RegADModel(**TINY | {"image_size": (192, 192)}, transform=None).eval()
    rest.encoder.load_state_dict(model.encoder.state_dict())
    steps = torch.linspace(-3, 3, 192)
    images = (0.5 + 0.5 * torch.sin(steps[:, None] + 2 * steps[None])).expand(1, 3, 192, 192).contiguous()
    with torch.no_grad():
        found, (expected, *_) = model.maps(images), rest.maps(images)
        moved = model._stages(images)[0][0]
    # a quarter turn is exact; only the first stage does not see a turned map
    torch.testing.assert_close(found[0], expected, atol=1e-3, rtol=1e-3)
    assert (moved - expected).abs().max() > 0.1

    with torch.no_grad():  # each further stage: undone step by step, as in the official code
        stages, matrices = model._stages(images)
        whole = torch.cat([matrices[0], torch.tensor([[[0.0, 0.0, 1.0]]])], dim=1)
        inverse = torch.linalg.inv(whole)[:, :2]
        twice = warp(warp(stages[1], inverse), inverse)
        thrice = warp(warp(warp(stages[2], inverse), inverse), inverse)
    torch.testing.assert_close(found[1], twice, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found[2], thrice, atol=1e-3, rtol=1e-3)


def test_a_support_image_is_compared_with_the_others_in_validation() -> None:
    support, others = random(4, 3, 64, 64), random(2, 3, 64, 64, seed=1)
    model = fitted(support)
    without = {number: fitted(support[torch.arange(4) != number]) for number in (0, 2)}
    images = torch.cat([support[:1], others, support[2:3]])
    found = predicted(model, images, own=[0, -1, 2, 2]).anomaly_map
    expected = torch.cat(
        [
            predicted(without[0], images[:1]).anomaly_map,
            predicted(model, images[1:2]).anomaly_map,
            predicted(without[2], images[2:]).anomaly_map,
        ]
    )
    torch.testing.assert_close(found, expected)
    assert (found[0] > 1.5 * predicted(model, images[:1]).anomaly_map[0]).all()


def test_a_single_support_image_has_no_others_and_freed_views_are_not_needed() -> None:
    images = random(1, 3, 64, 64)
    model = fitted(images)
    assert torch.equal(predicted(model, images, own=[0]).anomaly_map, predicted(model, images).anomaly_map)
    model = fitted(random(3, 3, 64, 64))
    model.forget_views()
    assert torch.equal(predicted(model, images, own=[0]).anomaly_map, predicted(model, images).anomaly_map)


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_an_anomaly_in_one_corner_is_found_there(size: tuple[int, int], corner: tuple[int, int]) -> None:
    height, width = size
    support = 0.1 * random(4, 3, *size) + 0.4
    model = moving(RegADModel(**TINY | {"image_size": size}).eval(), seed=0)
    with torch.no_grad():
        model.fit(support, seed=0)
    image = (0.1 * random(1, 3, *size, seed=1) + 0.4).clone()
    rows, columns = slice(corner[0] * (height - 20), corner[0] * (height - 20) + 20), None
    columns = slice(corner[1] * (width - 20), corner[1] * (width - 20) + 20)
    image[..., rows, columns] = random(1, 3, 20, 20, seed=2)
    row, column = divmod(predicted(model, image).anomaly_map[0, 0].argmax().item(), width)
    assert rows.start - 8 <= row < rows.stop + 8
    assert columns.start - 8 <= column < columns.stop + 8


def test_with_twice_the_stride_the_finest_map_is_averaged() -> None:
    model = RegADModel(**TINY, statistics_stride=8).eval()
    finer = RegADModel(**TINY).eval()
    images = random(2, 3, 64, 64)
    with torch.no_grad():
        pooled, fine = model.maps(images), finer.maps(images)
    quarters = [fine[0][..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    torch.testing.assert_close(pooled[0], sum(quarters) / 4)
    torch.testing.assert_close(pooled[1], fine[1])
    joined = model._joined(pooled).unflatten(2, (8, 8))
    torch.testing.assert_close(joined[:, 192:, 5, 2], pooled[2][..., 2, 1])
    assert fitted(images, statistics_stride=8).statistics.mean.shape == (64, 448)
    assert fitted(images).statistics.mean.shape == (256, 448)


def test_a_frozen_backbone_lets_gradients_through_to_the_transformers() -> None:
    model = RegADModel(**TINY, train_backbone=False).train()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    queries, supports = random(3, 3, 64, 64), random(3, 2, 3, 64, 64, seed=1)
    RegistrationLoss()(model.register(queries, supports)).backward()
    assert all(torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert all(transformer.localise[-1].weight.grad.abs().sum() > 0 for transformer in model.transformers)
    assert all(parameter.grad is not None for parameter in model.head.parameters())


def test_a_backbone_that_learns_gets_gradients_and_statistics_of_the_batch() -> None:
    model = RegADModel(**TINY).train()
    before = model.encoder.stages[0][1].running_mean.clone()
    RegistrationLoss()(model.register(random(3, 3, 64, 64), random(3, 2, 3, 64, 64, seed=1))).backward()
    assert not torch.equal(model.encoder.stages[0][1].running_mean, before)
    assert model.encoder.stages[0][0].weight.grad.abs().sum() > 0


def test_supports_are_averaged_before_the_head() -> None:
    model = moving(RegADModel(**TINY).eval(), seed=0)
    queries, supports = random(2, 3, 64, 64), random(2, 3, 3, 64, 64, seed=1)
    with torch.no_grad():
        found = model.register(queries, supports)
        for query in range(2):
            mean = sum(model._stages(supports[query, shot][None])[0][-1] for shot in range(3)) / 3
            torch.testing.assert_close(found.support[[query]], model.head["encoder"](mean), atol=1e-4, rtol=1e-3)
        expected = model.head["predictor"](found.query)
    assert found.query.shape == (2, 256, 4, 4)
    torch.testing.assert_close(found.predicted_query, expected)


def test_same_seed_same_initial_weights_and_global_generator_untouched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (RegADModel(**TINY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.head["encoder"][0].weight, second.head["encoder"][0].weight)
    assert torch.equal(first.transformers[0].localise[0].weight, second.transformers[0].localise[0].weight)
    assert not torch.equal(first.head["encoder"][0].weight, other.head["encoder"][0].weight)


def test_official_configuration_does_not_normalise() -> None:
    images = random(1, 3, 64, 64)
    model = RegADModel(**TINY, normalise=False)
    assert torch.equal(model.encoder.normalised(images), images)
    assert not torch.equal(RegADModel(**TINY).encoder.normalised(images), images)


@pytest.mark.parametrize("number", [1, 2])
def test_constant_images_have_finite_distances(number: int) -> None:
    model = fitted(torch.zeros(number, 3, 64, 64))
    for images in (torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)):
        predictions = predicted(model, images)
        assert predictions.anomaly_map.isfinite().all()
        assert predictions.anomaly_map.min() >= 0


def test_predictions_need_gaussians() -> None:
    with pytest.raises(RuntimeError, match="train the model or load a checkpoint"):
        RegADModel(**TINY).eval()(random(1, 3, 64, 64))


def test_features_that_are_not_finite_are_refused_with_a_cure() -> None:
    model = RegADModel(**TINY).eval()
    with torch.no_grad():
        model.encoder.stages[0][0].weight.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match=r"lower --model\.learning_rate"):
            model.fit(random(2, 3, 64, 64), seed=0)


@pytest.mark.parametrize(("angle", "warned"), [(0.0, False), (0.7, False), (1.6, True)])
def test_transformers_that_move_features_away_are_reported(angle: float, warned: bool, caplog) -> None:
    model = moving(RegADModel(**TINY).eval(), angle)
    with torch.no_grad():
        model.fit(random(2, 3, 64, 64), seed=0)
    assert ("--model.learning_rate" in caplog.text) == warned
    assert (" by 1 of a side" in caplog.text) == warned  # a quarter turn moves a corner to the next


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "timm/no_such_net"}, ["no_such_net", "timm"]),
        ({"layers": (3, 6)}, ["6", "1 to 5"]),
        ({"layers": (3, 2)}, ["layers=[3, 2]", "rising order"]),
        ({"layers": ()}, ["layers=[]"]),
        ({"ridge": 0.0}, ["ridge=0.0", "positive"]),
        ({"statistics_stride": 16}, ["statistics_stride=16", "use 4 or 8"]),
        ({"layers": (3, 4)}, ["statistics_stride=4", "use 8 or 16"]),
        ({"image_size": (64, 72), "statistics_stride": 8, "layers": (3,)}, []),
        (
            {"image_size": (64, 68), "statistics_stride": 8},
            ["16 x 17", "multiples of 8", "--model.statistics_stride 4"],
        ),
        ({"transform": "zoom"}, ["transform='zoom'", "rotation_scale"]),
        ({"views": ["zoom"]}, ["'zoom'", "rotate90"]),
    ],
)
def test_wrong_options_are_named(options: dict, words: list[str]) -> None:
    if not words:
        assert RegADModel(**TINY | options).grid == (8, 9)
        return
    with pytest.raises(ValueError) as error:
        RegADModel(**TINY | options)
    for word in words:
        assert word in str(error.value)
