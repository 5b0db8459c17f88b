# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Duration of a training step of ViT-L/14, and the share of the text encoder.

    python performance/training_step.py --threads 2

Forward pass, loss, backward pass and optimiser, without the synthesis. The reference and ours run in turn: ours on
painted views that are encoded already, and ours that encodes its batch (``--model.views null``), in the precisions of
the encoder that are given. The encoder has random weights, which take as long as CLIP's.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from reference import LARGE, ReferenceModel, alternate, describe_machine, frozen_towers, seconds_of

from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers
from anomalib_mediclip.models.mediclip import MediCLIPModel
from anomalib_mediclip.models.mediclip.builder import build_mediclip
from anomalib_mediclip.models.mediclip.loss import MediCLIPLoss


def training_step(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Return a function that trains a model on one batch."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3, betas=(0.5, 0.999))
    loss, masks = MediCLIPLoss(), torch.zeros(len(images), *images.shape[-2:], device=images.device)
    masks[:, 50:100, 50:100] = 1

    def step() -> None:
        optimizer.zero_grad()
        loss(model(images), masks).backward()
        optimizer.step()

    return step


def step_on_views(model: MediCLIPModel, images: torch.Tensor) -> Callable[[], None]:
    """Return a function that trains a model on a batch that is encoded already."""
    with torch.no_grad():
        features = model.vision_encoder(images)

    class Head(torch.nn.Module):
        """What a step runs then."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> Any:
            """Compute the maps from the kept features."""
            return self.model.head(features, images.shape[-2:])

    return training_step(Head(), images)


def prompt_step(model: MediCLIPModel) -> Callable[[], None]:
    """Return a function that runs the text encoder forward and backward."""
    return lambda: model.prompts()[0].sum().backward()


def in_bfloat16(model: MediCLIPModel, function: Callable[[], Any]) -> float:
    """Time a call with the encoder in bfloat16."""
    towers = Bfloat16Towers(frozen_towers(model))
    try:
        return seconds_of(function)
    finally:
        towers.restore()


def _timer(model: MediCLIPModel, function: Callable[[], Any], precision: str) -> Callable[[], float]:
    """Return a function that times a call in a precision of the encoder."""
    return lambda: in_bfloat16(model, function) if precision == "bfloat16" else seconds_of(function)


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=("float32", "bfloat16"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, reference = (build(**LARGE).to(arguments.device) for build in (build_mediclip, ReferenceModel))
    images = torch.rand(arguments.batch_size, 3, 224, 224, device=arguments.device)
    their_step, their_text, our_text = training_step(reference, images), prompt_step(reference), prompt_step(ours)
    steps = {"reference": lambda: seconds_of(their_step)}
    texts = {"reference": lambda: seconds_of(their_text)}
    for precision in arguments.precisions:
        for name, step in (("views", step_on_views(ours, images)), ("fresh", training_step(ours, images))):
            steps[f"ours, {name}, {precision}"] = _timer(ours, step, precision)
            texts[f"ours, {name}, {precision}"] = _timer(ours, our_text, precision)
    seconds, text_seconds = alternate(steps, arguments.rounds), alternate(texts, arguments.rounds)
    print(f"\nBatch {arguments.batch_size}, {arguments.device}, {describe_machine()}\n")
    print("| variant | seconds a step | text encoder | its share | faster than the reference |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, value in seconds.items():
        text, ratio = text_seconds[name], seconds["reference"] / value
        print(f"| {name} | {value:.2f} | {text:.2f} | {text / value:.0%} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
