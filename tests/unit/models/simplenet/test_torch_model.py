# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The parts of SimpleNet against the paper's formulae, and properties that a user would miss."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomalib_mediclip import SimpleNetModel
from anomalib_mediclip.encoders.weights import weights_hash
from anomalib_mediclip.models.simplenet.anomaly_map import AnomalyMapGenerator
from anomalib_mediclip.models.simplenet.loss import SimpleNetLoss
from anomalib_mediclip.models.simplenet.torch_model import Discriminator, FeatureAdaptor, local_features

TINY = {"encoder": "timm/resnet18", "weights": None}


def noise_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_loss_is_the_truncated_l1_of_the_paper() -> None:
    normal, anomalous = torch.tensor([0.5, 0.0, -1.0, 9.0]), torch.tensor([-0.5, 0.0, 1.0, -9.0])
    assert SimpleNetLoss()(normal, anomalous).item() == pytest.approx((0 + 1.0 + 3.0 + 0) / 4)
    assert SimpleNetLoss()(torch.full((3,), 0.5), torch.full((3,), -0.5)).item() == 0


def test_loss_pushes_only_what_lies_within_the_margins() -> None:
    normal = torch.tensor([0.4, 0.6], requires_grad=True)
    SimpleNetLoss()(normal, torch.tensor([-1.0, -1.0])).backward()
    assert normal.grad is not None
    assert normal.grad.tolist() == [-0.5, 0.0]


def test_local_features_average_the_neighbourhood_and_take_the_size_of_the_first_level() -> None:
    spike = torch.zeros(1, 1, 6, 6)
    spike[0, 0, 2, 3] = 9.0
    deeper = torch.arange(9.0).view(1, 1, 3, 3)
    features = local_features([spike, deeper])
    assert features.shape == (1, 2, 6, 6)
    expected = torch.zeros(6, 6)
    expected[1:4, 2:5] = 1.0
    torch.testing.assert_close(features[0, 0], expected)
    assert local_features([torch.ones(1, 1, 2, 2)]).flatten().tolist() == pytest.approx([4 / 9] * 4)  # zeros beyond


def test_levels_of_the_default_backbone_are_layer2_and_layer3_with_1536_channels() -> None:
    model = SimpleNetModel(weights=None)
    assert model.vision_encoder.tower.feature_info.module_name() == ["layer2", "layer3"]
    assert model.vision_encoder.channels == [512, 1024]
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert learnt == 1536 * 1536 + (1536 * 1024 + 1024) + 2 * 1024 + 1024


def test_adaptor_is_linear_without_bias_and_discriminator_has_the_layers_of_the_paper() -> None:
    adaptor = FeatureAdaptor(8)
    assert adaptor(torch.zeros(1, 8, 2, 2)).abs().max() == 0
    assert [type(layer).__name__ for layer in Discriminator(8)] == ["Conv2d", "BatchNorm2d", "LeakyReLU", "Conv2d"]
    assert Discriminator(8)[2].negative_slope == 0.2
    assert Discriminator(8)[3].bias is None


def test_noise_has_the_deviation_asked_for_and_comes_from_the_generator() -> None:
    model = SimpleNetModel(**TINY, noise=0.25)
    seen = []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    images = torch.rand(2, 3, 64, 64)
    for seed in (1, 1, 2):
        model.head(model.vision_encoder(images), (64, 64), noise_of(seed))
    normal, anomalous = seen[0].chunk(2)
    assert (anomalous - normal).std().item() == pytest.approx(0.25, rel=0.02)
    assert abs((anomalous - normal).mean().item()) < 0.005
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    torch.testing.assert_close(seen[0].chunk(2)[0], seen[2].chunk(2)[0])


def test_image_score_is_the_maximum_over_patches_before_smoothing() -> None:
    scores = torch.full((1, 1, 8, 8), -2.0)
    scores[0, 0, 3, 4] = 1.5
    predictions = AnomalyMapGenerator()(scores, (64, 64))
    assert predictions.pred_score.tolist() == [1.5]
    assert predictions.anomaly_map.max() < predictions.pred_score.item()
    assert predictions.anomaly_map.argmax().item() in range(64 * 24, 64 * 33)


def test_map_is_smoothed_with_sigma_4() -> None:
    scores = torch.randn(1, 1, 64, 64, generator=noise_of(0))
    anomaly_map = AnomalyMapGenerator()(scores, (64, 64)).anomaly_map
    expected = torch.from_numpy(gaussian_filter(scores[0, 0].numpy(), 4.0))
    inside = slice(16, -16)  # the rest depends on what lies beyond the border
    torch.testing.assert_close(anomaly_map[0, 0, inside, inside], expected[inside, inside], atol=1e-5, rtol=0)


def test_scores_that_a_sigmoid_would_tie_stay_apart() -> None:
    scores = torch.tensor([-200.0, 18.0, 19.0, 20.0, 500.0])
    predictions = AnomalyMapGenerator()(scores.view(-1, 1, 1, 1).expand(-1, 1, 3, 3), (17, 17))
    assert torch.equal(predictions.pred_score, scores)
    torch.testing.assert_close(predictions.anomaly_map[:, 0, 8, 8], scores)


def test_switching_to_inference_returns_minus_d_of_the_paper() -> None:
    model = SimpleNetModel(**TINY).eval()
    seen = []
    model.discriminator.register_forward_hook(lambda _, inputs, output: seen.append(output.detach()))
    predictions = model(torch.rand(2, 3, 96, 64))
    assert predictions.anomaly_map.shape == (2, 1, 96, 64)
    assert torch.equal(predictions.pred_score, -seen[0].amin(dim=(1, 2, 3)))
    assert predictions.anomaly_map.min() < 0  # no probability


def test_training_teaches_adaptor_and_discriminator_and_leaves_the_backbone_alone() -> None:
    model = SimpleNetModel(**TINY).train()
    before = {name: value.clone() for name, value in model.vision_encoder.state_dict().items()}
    SimpleNetLoss()(*model.head(model.vision_encoder(torch.rand(2, 3, 64, 64)), (64, 64), noise_of(0))).backward()
    assert all(torch.equal(before[name], value) for name, value in model.vision_encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in model.vision_encoder.parameters())
    assert model.adaptor.weight.grad is not None
    assert all(parameter.grad is not None for parameter in model.discriminator.parameters())


def test_discriminator_learns_to_tell_noise_from_features() -> None:
    model = SimpleNetModel(**TINY, noise=0.5)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    images = torch.rand(2, 3, 64, 64, generator=noise_of(0))
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        losses.append(SimpleNetLoss()(*model.head(model.vision_encoder(images), (64, 64), noise_of(step))))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 < losses[0]


def test_same_seed_same_initial_weights_and_global_generator_untouched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (SimpleNetModel(**TINY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.adaptor.weight, second.adaptor.weight)
    assert torch.equal(first.discriminator[0].weight, second.discriminator[0].weight)
    assert not torch.equal(first.adaptor.weight, other.adaptor.weight)
    assert weights_hash(first.vision_encoder) == weights_hash(other.vision_encoder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "timm/no_such_net"}, ["no_such_net", "timm"]),
        ({"layers": [3, 6]}, ["[3, 6]", "1 to 5"]),
        ({"noise": 0.0}, ["noise=0.0", "positive"]),
    ],
)
def test_wrong_options_are_named(options: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        SimpleNetModel(**TINY | options)
    for word in words:
        assert word in str(error.value)
