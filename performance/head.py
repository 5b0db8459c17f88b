# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Duration of what follows the encoder: adapters, comparison, map, and in training loss, backward pass and optimiser.

    python performance/head.py --threads 2

Features are random and have the shapes of the lite encoder or of ViT-L/14; prompts are two vectors, so that the text
encoder does not count. Forms of the same mathematics run in turn: unit vectors before the comparison, the length
divided out after it, text features folded into the adapters, channels last in memory, and a loss on every fourth pixel.
The last column is the largest difference of the maps from those of unit vectors.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from reference import alternate, describe_machine, seconds_of
from torch import nn
from torch.nn import functional

from anomalib_mediclip.models.mediclip.adapter import VisualAdapter
from anomalib_mediclip.models.mediclip.anomaly_map import AnomalyMapGenerator
from anomalib_mediclip.models.mediclip.loss import MediCLIPLoss

SHAPES = {  # channels and side of the tapped blocks, width of the prompt features
    "lite": (((40, 28), (112, 14), (320, 7)), 256),
    "ViT-L/14": (((1024, 16),) * 3, 768),
}
IMAGE_SIZE = (224, 224)


class Head:
    """Adapters, prompts and maps, in several forms.

    Args:
        encoder (str): Key of :data:`SHAPES`.
        batch_size (int): Number of images.
    """

    def __init__(self, encoder: str, batch_size: int) -> None:
        torch.manual_seed(0)
        blocks, width = SHAPES[encoder]
        self.adapters = nn.ModuleList(VisualAdapter(channels, width) for channels, _ in blocks)
        self.prompts = nn.Parameter(torch.randn(2, width))
        self.features = [torch.randn(batch_size, channels, side, side) for channels, side in blocks]
        self.channels_last = [block.contiguous(memory_format=torch.channels_last) for block in self.features]
        self.maps = AnomalyMapGenerator(0.2)

    def _prompt_features(self) -> torch.Tensor:
        return functional.normalize(self.prompts, dim=-1)

    def unit_vectors(self) -> torch.Tensor:
        """Compare unit vectors."""
        pairs = zip(self.adapters, self.features, strict=True)
        adapted = [functional.normalize(adapter(block), dim=1) for adapter, block in pairs]
        return self.maps(adapted, self._prompt_features(), IMAGE_SIZE)

    def as_shipped(self, features: list[torch.Tensor], size: tuple[int, int] = IMAGE_SIZE) -> torch.Tensor:
        """Divide the length out after the product."""
        adapted = [adapter(block) for adapter, block in zip(self.adapters, features, strict=True)]
        return self.maps(adapted, self._prompt_features(), size)

    def folded(self) -> torch.Tensor:
        """Have one matrix for a block that holds the adapter and its product with the prompts."""
        normal, abnormal = self._prompt_features()
        contrasts = []
        for adapter, block in zip(self.adapters, self.channels_last, strict=True):
            direction = (abnormal - normal) @ adapter.weight.flatten(1)
            weight = torch.cat([adapter.weight, direction[None, :, None, None]])
            bias = torch.cat([adapter.bias, ((abnormal - normal) @ adapter.bias)[None]])
            output = functional.conv2d(block, weight, bias)
            contrasts.append(output[:, -1:] / torch.linalg.vector_norm(output[:, :-1], dim=1, keepdim=True))
        probabilities = [(contrast / self.maps.temperature).sigmoid() for contrast in contrasts]
        upsampled = [functional.interpolate(p, IMAGE_SIZE, mode="bilinear", align_corners=True) for p in probabilities]
        abnormal_map = torch.stack(upsampled).mean(dim=0)
        return torch.cat([1 - abnormal_map, abnormal_map], dim=1)


def training_step(head: Head, maps: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """Return a function that trains a head once."""
    learnt = [*head.adapters.parameters(), head.prompts]
    optimizer, loss = torch.optim.Adam(learnt, lr=1e-4), MediCLIPLoss()

    def step() -> None:
        probabilities = maps()
        masks = torch.zeros(len(probabilities), *probabilities.shape[-2:])
        masks[:, : masks.shape[1] // 4, : masks.shape[2] // 4] = 1
        optimizer.zero_grad()
        loss(probabilities, masks).backward()
        optimizer.step()

    return step


def table(encoder: str, batch_size: int, training: bool, rounds: int) -> None:
    """Time the forms in turn and print a table."""
    head = Head(encoder, batch_size)
    quarter = (IMAGE_SIZE[0] // 4, IMAGE_SIZE[1] // 4)
    forms: dict[str, Callable[[], torch.Tensor]] = {
        "unit vectors": head.unit_vectors,
        "length divided out last": lambda: head.as_shipped(head.features),
        "and channels last": lambda: head.as_shipped(head.channels_last),
    }
    if training:
        forms["and every fourth pixel"] = lambda: head.as_shipped(head.channels_last, quarter)
    else:
        forms["folded into the adapters"] = head.folded
    expected = head.unit_vectors()
    calls: dict[str, Callable[[], Any]] = {
        name: training_step(head, form) if training else form for name, form in forms.items()
    }
    with torch.set_grad_enabled(training):
        differences = {name: _difference(form().detach(), expected.detach()) for name, form in forms.items()}
        seconds = alternate({name: (lambda call=call: seconds_of(call)) for name, call in calls.items()}, rounds)
    print(f"\n{encoder}, batch {batch_size}, {'training step' if training else 'inference'}\n")
    print("| form | milliseconds | largest difference |\n| --- | ---: | ---: |")
    for name, value in seconds.items():
        print(f"| {name} | {1000 * value:.2f} | {differences[name]} |")


def _difference(maps: torch.Tensor, expected: torch.Tensor) -> str:
    return f"{(maps - expected).abs().max():.0e}" if maps.shape == expected.shape else ""


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(describe_machine())
    for encoder in SHAPES:
        table(encoder, 8, training=True, rounds=arguments.rounds)
        table(encoder, 1, training=False, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
