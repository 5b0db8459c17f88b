# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A step and a prediction of Patch SVDD against the paper's formulae, patch by patch, in loops and in float64."""

import math

import pytest
import torch
from torch.nn import functional

from anomalib_mediclip import PatchSVDD, PatchSVDDModel
from anomalib_mediclip.seeds import generator_of

SIZE, STRIDES, WIDTH = (96, 112), (16, 8), 8
LEAKY = 0.1


def of_small(weights: dict[str, torch.Tensor], patch: torch.Tensor) -> torch.Tensor:
    """Embed one patch ``(3, 32, 32)`` by the layers of the official code."""
    features = patch.double()[None]
    for layer in range(8):
        name = f"small_encoder.convolutions.{layer}"
        features = functional.conv2d(features, weights[f"{name}.weight"], weights[f"{name}.bias"], 1 if layer else 2)
        features = features.tanh() if layer == 7 else functional.leaky_relu(features, LEAKY)
    return features[0, :, 0, 0]


def of_large(weights: dict[str, torch.Tensor], patch: torch.Tensor) -> torch.Tensor:
    """Embed one patch ``(3, 64, 64)``: its quadrants, then a weighted sum over their places and a second layer."""
    first, bias = weights["large_encoder.quadrants.weight"], weights["large_encoder.quadrants.bias"]
    hidden = bias.clone()
    for row in range(2):
        for column in range(2):
            quadrant = patch[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            hidden += first[:, :, row, column] @ of_small(weights, quadrant)
    second, bias = weights["large_encoder.output.weight"][:, :, 0, 0], weights["large_encoder.output.bias"]
    return (second @ functional.leaky_relu(hidden, LEAKY) + bias).tanh()


EMBED = {64: of_large, 32: of_small}


def double_weights(model: PatchSVDDModel) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in model.state_dict().items()}


def places(side: int, stride: int) -> list[tuple[int, int]]:
    return [(y, x) for y in range(0, SIZE[0] - side + 1, stride) for x in range(0, SIZE[1] - side + 1, stride)]


def embeddings_of(weights, image: torch.Tensor, side: int, stride: int) -> dict[tuple[int, int], torch.Tensor]:
    return {(y, x): EMBED[side](weights, image[:, y : y + side, x : x + side]) for y, x in places(side, stride)}


def expected_map(image, support: dict[int, list[dict]], own: int | None, weights) -> torch.Tensor:
    """Return the product of the maps of both sizes; ``support`` holds the embeddings of each support image by size."""
    maps = []
    for side, stride in zip((64, 32), STRIDES, strict=True):
        total, number = torch.zeros(SIZE, dtype=torch.float64), torch.zeros(SIZE, dtype=torch.float64)
        for (y, x), embedded in embeddings_of(weights, image, side, stride).items():
            distances = [
                math.dist(embedded.tolist(), other.tolist())
                for image_number, of_image in enumerate(support[side])
                for (v, u), other in of_image.items()
                if image_number != own or (len(support[side]) == 1 and max(abs(v - y), abs(u - x)) >= side)
            ]
            total[y : y + side, x : x + side] += min(distances) if distances else 0.0
            number[y : y + side, x : x + side] += 1
        maps.append(total / number)
    return maps[0] * maps[1]


def textures(number: int, seed: int) -> torch.Tensor:
    return torch.rand(number, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("subtract", ["mean_colour", "mean_image"])
def test_a_map_is_that_of_patches_embedded_and_compared_one_by_one(subtract) -> None:
    supports, seen = textures(2, 0), textures(1, 1)
    model = PatchSVDDModel(SIZE, WIDTH, STRIDES, subtract=subtract).eval()
    with torch.no_grad():
        model.fit(supports, seed=0)
        found = [model(seen), model(supports[1:], torch.tensor([1])), model(seen, torch.tensor([-1]))]
    weights = double_weights(model)
    mean = supports.double().mean(dim=(0, 2, 3) if subtract == "mean_colour" else 0)
    centred = supports.double() - mean.view(3, *((1, 1) if subtract == "mean_colour" else SIZE))
    other = seen[0].double() - mean.view(3, *((1, 1) if subtract == "mean_colour" else SIZE))
    support = {
        side: [embeddings_of(weights, image, side, stride) for image in centred]
        for side, stride in zip((64, 32), STRIDES, strict=True)
    }
    for predictions, image, own in zip(found, (other, centred[1], other), (None, 1, None), strict=True):
        expected = expected_map(image, support, own, weights)
        torch.testing.assert_close(predictions.anomaly_map[0, 0].double(), expected, rtol=1e-4, atol=1e-9)
        assert predictions.pred_score.item() == pytest.approx(expected.max().item(), rel=1e-4)


def test_a_single_support_image_is_compared_with_its_own_patches_elsewhere() -> None:
    support = textures(1, 2)
    model = PatchSVDDModel(SIZE, WIDTH, STRIDES, combine="small").eval()
    with torch.no_grad():
        model.fit(support, seed=0)
        found = model(support, torch.tensor([0])).anomaly_map[0, 0].double()
    weights, side, stride = double_weights(model), 32, STRIDES[1]
    centred = support[0].double() - support[0].double().mean(dim=(1, 2), keepdim=True)
    patches = embeddings_of(weights, centred, side, stride)
    total, number = torch.zeros(SIZE, dtype=torch.float64), torch.zeros(SIZE, dtype=torch.float64)
    for (y, x), embedded in patches.items():
        apart = [other for (v, u), other in patches.items() if max(abs(v - y), abs(u - x)) >= side]
        area = (slice(y, y + side), slice(x, x + side))
        total[area] += min(math.dist(embedded.tolist(), other.tolist()) for other in apart)
        number[area] += 1
    torch.testing.assert_close(found, total / number, rtol=1e-4, atol=1e-9)


class Batch:
    def __init__(self, images: torch.Tensor) -> None:
        self.image, self.batch_size = images, len(images)


def a_step(**options) -> tuple[PatchSVDD, torch.Tensor, torch.Tensor, dict[int, torch.Tensor], list[tuple]]:
    """Return a module, its images, the loss of a step, and what the step encoded and classified."""
    module = PatchSVDD(**{"image_size": (128, 128), "embedding_dim": WIDTH, "strides": (32, 16), "pairs": 6, **options})
    module.log = lambda *_, **__: None
    module.generator_of_batch = generator_of
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    module.model.take_mean(images)
    patches: dict[int, torch.Tensor] = {}
    embed, labels = module.model.embed_patches, []

    def watched(large, small):
        patches.update({64: large.clone(), 32: small.clone()})
        return embed(large, small)

    module.model.embed_patches = watched
    module.loss.register_forward_pre_hook(lambda _, inputs: labels.append(inputs[1]))
    return module, images, module.training_step(Batch(images)), patches, labels


def test_the_loss_of_a_step_is_that_of_four_passes_patch_by_patch() -> None:
    module, _, loss, patches, labels = a_step(svdd_weight=0.7)
    weights, expected = double_weights(module.model), 0.0
    for side, directions in zip((64, 32), labels, strict=True):
        passes = [torch.stack([EMBED[side](weights, p) for p in part]) for part in patches[side].chunk(4)]
        near, near_too, first, second = passes
        distances = [math.dist(a, b) for a, b in zip(near.tolist(), near_too.tolist(), strict=True)]
        name = "large_classifier" if side == 64 else "small_classifier"
        features = first - second
        for layer in ("hidden.0", "hidden.1", "readout"):
            features = features @ weights[f"{name}.{layer}.weight"].T + weights[f"{name}.{layer}.bias"]
            features = features if layer == "readout" else torch.where(features > 0, features, LEAKY * features)
        chosen = [features[i].softmax(0)[d].log().item() for i, d in enumerate(directions.tolist())]
        expected += 0.7 * sum(distances) / 6 - sum(chosen) / 6
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def windows_of(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return every eighth pixel of all patches of images, ``(B, 3, rows, columns, side / 8, side / 8)``."""
    return images.unfold(2, side, 1).unfold(3, side, 1)[..., ::8, ::8]


def coarse(patch: torch.Tensor) -> torch.Tensor:
    """Return every eighth pixel of a patch, in the form of :func:`windows_of`."""
    return patch[None, :, None, None, ::8, ::8]


def corners_of(patch: torch.Tensor, centred: torch.Tensor) -> tuple[int, int, int]:
    """Return number, top and left of the image that holds this patch to the bit."""
    side = patch.shape[-1]
    number, top, left = (windows_of(centred, side) == coarse(patch)).all(dim=(1, 4, 5)).nonzero().squeeze(0).tolist()
    assert torch.equal(centred[number, :, top : top + side, left : left + side], patch)
    return number, top, left


@pytest.mark.parametrize("side", [64, 32])
def test_close_pairs_are_cut_from_the_images_as_they_are_and_neighbours_get_noise(side) -> None:
    module, images, _, patches, _ = a_step()
    centred = images - module.model.mean
    close, close_too, first, second = patches[side].chunk(4)
    for one, other in zip(close, close_too, strict=True):
        (number, top, left), (number_too, top_too, left_too) = (corners_of(p, centred) for p in (one, other))
        assert number == number_too
        assert 0 < max(abs(top - top_too), abs(left - left_too)) <= side // 32
    for patch in torch.cat([first, second]):
        away = (windows_of(centred, side) - coarse(patch)).square().mean(dim=(1, 4, 5)).sqrt().min().item()
        assert 0.015 < away < 0.06  # colour shift and pixel noise, 0.02 each


def test_scores_do_not_depend_on_mixed_precision() -> None:
    supports, seen = textures(3, 4), textures(2, 5)
    model = PatchSVDDModel(SIZE, WIDTH, STRIDES).eval()
    with torch.no_grad():
        model.fit(supports, seed=0)
        expected = model(seen)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, of_supports = model(seen), model(supports)
    assert torch.equal(mixed.anomaly_map, expected.anomaly_map)
    assert torch.equal(mixed.pred_score, expected.pred_score)
    assert of_supports.anomaly_map.abs().max() == 0


@pytest.mark.parametrize("subtract", ["mean_colour", "mean_image"])
def test_a_shift_of_the_mean_does_not_change_what_is_near_what(subtract) -> None:
    """The first bias absorbs a constant exactly, because nothing is padded: centring is no more than a start."""
    supports, seen = textures(2, 6), textures(1, 7)
    model, moved = (PatchSVDDModel(SIZE, WIDTH, STRIDES, subtract=subtract).double().eval() for _ in range(2))
    first = moved.small_encoder.convolutions[0]
    with torch.no_grad():
        first.bias += 0.25 * first.weight.sum(dim=(1, 2, 3))
        model.fit(supports.double(), seed=0)
        moved.fit(supports.double(), seed=0)
        model.mean -= 0.25
        moved_map = moved(seen.double()).anomaly_map
        embeddings = model.embed_images(supports.double())
        model.statistics.remember(*embeddings)
        torch.testing.assert_close(model(seen.double()).anomaly_map, moved_map, rtol=1e-9, atol=1e-12)
