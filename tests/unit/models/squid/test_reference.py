# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A reconstruction of SQUID and its realness, image by image and patch by patch in float64, from the weights alone."""

import math

import pytest
import torch
from torch.nn import functional

from anomalib_mediclip import SQUIDModel
from anomalib_mediclip.models.squid.anomaly_map import AnomalyMapGenerator

SIZE, WIDTH, SLOTS, TOP_K = (64, 128), 4, 9, 3
EPSILON = 1e-5


def trained_model() -> SQUIDModel:
    """Return a model whose normalisations and memories are not those of the start."""
    model = SQUIDModel(SIZE, WIDTH, SLOTS, TOP_K).double().train()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # a fresh network is nearly the same for all images
        parameter.data *= 1.5
    for _ in range(6):
        images = torch.rand(3, 1, *SIZE, dtype=torch.float64, generator=generator)
        with torch.no_grad():
            generated = model.generate(images, generator)
            model.discriminator(generated.student)
        model.inpainting.queues.update(generated.queries)
    return model.eval()


class Network:
    """The layers of the official code as functions of a state dict."""

    def __init__(self, model: SQUIDModel) -> None:
        self.state = {name: value.double() for name, value in model.state_dict().items()}

    def convolution(self, name: str, features: torch.Tensor, stride: int = 1, padding: int = 0) -> torch.Tensor:
        bias = self.state.get(f"{name}.bias")
        return functional.conv2d(features, self.state[f"{name}.weight"], bias, stride, padding)

    def running(self, name: str, features: torch.Tensor) -> torch.Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (features - mean) / (variance + EPSILON).sqrt() * weight + bias

    def block(self, name: str, features: torch.Tensor, stride: int = 1) -> torch.Tensor:
        first = self.running(f"{name}.first.1", self.convolution(f"{name}.first.0", features, stride, 1)).relu()
        inner = self.running(f"{name}.residual.1", self.convolution(f"{name}.residual.0", first, 1, 1)).relu()
        return (first + self.running(f"{name}.residual.4", self.convolution(f"{name}.residual.3", inner, 1, 1))).relu()

    def encode(self, patch: torch.Tensor) -> list[torch.Tensor]:
        levels = [self.block("encoder.input", patch)]
        for level in range(4):
            levels.append(self.block(f"encoder.down.{level}", levels[-1], 2))
        return levels

    def answer(self, query: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        products = slots @ query
        best = products.argsort(descending=True)[:TOP_K]
        return products[best].softmax(dim=0) @ slots[best]

    def normalised(self, name: str, values: torch.Tensor) -> torch.Tensor:
        centred = values - values.mean()
        deviation = (centred.square().mean() + EPSILON).sqrt()
        return centred / deviation * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def attend(self, query: torch.Tensor, around: list[torch.Tensor]) -> torch.Tensor:
        name = "inpainting.attention"
        weights = self.state[f"{name}.in_proj_weight"].chunk(3)
        biases = self.state[f"{name}.in_proj_bias"].chunk(3)
        projected = weights[0] @ query + biases[0]
        keys = torch.stack([weights[1] @ value + biases[1] for value in around])
        values = torch.stack([weights[2] @ value + biases[2] for value in around])
        heads, width = [], len(query) // 8
        for head in range(8):
            part = slice(head * width, (head + 1) * width)
            shares = (keys[:, part] @ projected[part] / math.sqrt(width)).softmax(dim=0)
            heads.append(shares @ values[:, part])
        return self.state[f"{name}.out_proj.weight"] @ torch.cat(heads) + self.state[f"{name}.out_proj.bias"]

    def inpaint(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        queries = [
            self.running("inpainting.narrow.1", self.convolution("inpainting.narrow.0", z)).relu() for z in features
        ]
        shape = queries[0].shape
        normal = [self.answer(q.flatten(), self.state["inpainting.queues.slots"][p]) for p, q in enumerate(queries)]
        inpainted = []
        for place, query in enumerate(queries):
            others = [value for index, value in enumerate(normal) if index != place]  # all touch, in a grid of 2 x 2
            around = others + [torch.zeros_like(normal[0])] * 5
            mixed = self.normalised("inpainting.attention_norm", self.attend(query.flatten(), around)) + normal[place]
            mixed = mixed.relu()
            hidden = self.state["inpainting.perceptron.0.weight"] @ mixed + self.state["inpainting.perceptron.0.bias"]
            hidden = self.state["inpainting.perceptron.2.weight"] @ hidden.relu()
            hidden = hidden + self.state["inpainting.perceptron.2.bias"]
            mixed = (self.normalised("inpainting.perceptron_norm", hidden) + mixed).relu().view(shape)
            code = [torch.full_like(mixed[:, :1], float(bit)) for bit in reversed(f"{place:03b}")]
            widened = self.convolution("inpainting.widen.0", torch.cat([mixed, *code], dim=1))
            inpainted.append(self.running("inpainting.widen.1", widened).relu())
        return inpainted

    def remember(self, name: str, features: torch.Tensor) -> torch.Tensor:
        height, width = features.shape[2] // 2, features.shape[3] // 2
        result = torch.zeros_like(features)
        for place in range(4):
            rows, columns = (place // 2 * height, place % 2 * width)
            area = (slice(0, 1), slice(None), slice(rows, rows + height), slice(columns, columns + width))
            window = features[area]
            result[area] = self.answer(window.flatten(), self.state[f"{name}.slots"][place]).view_as(window)
        return result

    def decode(self, features: list[torch.Tensor], skips: list[list[torch.Tensor]]) -> torch.Tensor:
        def enlarge(values: torch.Tensor) -> torch.Tensor:
            size = [2 * side for side in values.shape[2:]]
            return functional.interpolate(values, size, mode="bilinear", align_corners=False)

        patches = []
        for z, levels in zip(features, skips, strict=True):
            up = self.block("student.blocks.0", torch.cat([enlarge(z), levels[3]], dim=1))
            up = self.remember("student.memories.0", up)
            up = self.block("student.blocks.1", torch.cat([enlarge(up), levels[2]], dim=1))
            patches.append(self.remember("student.memories.1", up))
        whole = torch.cat([torch.cat(patches[:2], dim=3), torch.cat(patches[2:], dim=3)], dim=2)
        whole = self.block("student.blocks.3", enlarge(self.block("student.blocks.2", enlarge(whole))))
        return self.convolution("student.output", whole).sigmoid()

    def realness(self, image: torch.Tensor) -> torch.Tensor:
        features = image
        for layer in range(5):
            features = self.convolution(f"discriminator.convolutions.{layer}", features, 2, 2)
            if layer:
                mean = features.mean(dim=(2, 3), keepdim=True)
                variance = (features - mean).square().mean(dim=(2, 3), keepdim=True)
                name = f"discriminator.norms.{layer - 1}"
                weight, bias = (self.state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
                features = (features - mean) / (variance + EPSILON).sqrt() * weight + bias
            features = torch.where(features > 0, features, 0.2 * features)
        return (
            self.state["discriminator.readout.weight"] @ features.flatten() + self.state["discriminator.readout.bias"]
        )


def patches_of(image: torch.Tensor) -> list[torch.Tensor]:
    height, width = SIZE[0] // 2, SIZE[1] // 2
    return [image[None, None, top : top + height, left : left + width] for top in (0, height) for left in (0, width)]


def blurred(error: torch.Tensor) -> torch.Tensor:
    """Blur by a Gaussian of sigma 4, 33 wide, edges reflected."""
    taps = torch.tensor([math.exp(-((x / 4) ** 2) / 2) for x in range(-16, 17)], dtype=torch.float64)
    taps = taps / taps.sum()
    padded = functional.pad(error, (16, 16, 16, 16), mode="reflect")
    return functional.conv2d(functional.conv2d(padded, taps.view(1, 1, 33, 1)), taps.view(1, 1, 1, 33))


@pytest.fixture(scope="module")
def model() -> SQUIDModel:
    return trained_model()


def test_a_reconstruction_and_its_realness_are_those_of_patches_one_by_one(model) -> None:
    network = Network(model)
    images = torch.rand(2, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.reconstruct(images)
        realness, errors = model.measure(images.mean(dim=1, keepdim=True))
    assert found.std() > 1e-3
    for number, image in enumerate(images):
        grey = (image[0] + image[1] + image[2]) / 3
        encoded = [network.encode(patch) for patch in patches_of(grey)]
        expected = network.decode(network.inpaint([levels[4] for levels in encoded]), encoded)
        torch.testing.assert_close(found[number], expected[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(realness[number], network.realness(expected)[0], rtol=1e-7, atol=1e-9)
        # anomalib's kernel is in float32
        error = (grey - expected).abs()
        torch.testing.assert_close(errors[number], blurred(error)[0], rtol=0, atol=1e-6)


def test_the_kernel_of_the_blur_is_the_one_expected_here() -> None:
    error = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    found = AnomalyMapGenerator().double().smoothed_error(error, torch.zeros_like(error))
    torch.testing.assert_close(found, blurred(error), rtol=0, atol=1e-6)
