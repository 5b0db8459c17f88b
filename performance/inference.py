# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Duration of inference with ViT-L/14 per image, at several batch sizes.

    python performance/inference.py --threads 2

Ours in float32, ours in bfloat16 and the reference run in turn. The encoder has random weights, which take as long as
CLIP's. The last column is what the hardware leaves to be gained: operations counted, as a share of those that the same
device does in that time when it multiplies large matrices of the same type.
"""

import argparse

import torch
from reference import LARGE, ReferenceModel, alternate, describe_machine, frozen_towers, seconds_of
from torch.utils.flop_counter import FlopCounterMode

from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers
from anomalib_mediclip.models.mediclip import MediCLIPModel
from anomalib_mediclip.models.mediclip.builder import build_mediclip


@torch.no_grad()
def times(ours: MediCLIPModel, reference: MediCLIPModel, images: torch.Tensor, rounds: int) -> dict[str, float]:
    """Return the seconds that a batch takes in each variant."""

    def in_bfloat16() -> float:
        towers = Bfloat16Towers(frozen_towers(ours))
        try:
            return seconds_of(lambda: ours(images))
        finally:
            towers.restore()

    variants = {
        "reference": lambda: seconds_of(lambda: reference(images)),
        "ours, float32": lambda: seconds_of(lambda: ours(images)),
        "ours, bfloat16": in_bfloat16,
    }
    return alternate(variants, rounds)


def operations_of(model: MediCLIPModel) -> int:
    """Count the floating-point operations of one image."""
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see into it
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 224, 224, device=model.prompt_features.device))
    torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops()


def matrix_rate(dtype: torch.dtype, device: str, side: int = 4096) -> float:
    """Return the operations a second of large matrix products, the quickest of ten."""
    matrix = torch.rand(side, side, device=device).to(dtype)
    product = torch.empty_like(matrix)
    seconds = min(seconds_of(lambda: torch.mm(matrix, matrix, out=product)) for _ in range(10))
    return 2 * side**3 / seconds


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, reference = (build(**LARGE).to(arguments.device).eval() for build in (build_mediclip, ReferenceModel))
    operations = operations_of(ours)
    print(f"\n{arguments.device}, {describe_machine()}, {operations / 1e9:.0f} GFLOP an image\n")
    print("| batch | variant | seconds an image | faster than the reference | share of the matrix rate |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for batch_size in arguments.batch_sizes:
        images = torch.rand(batch_size, 3, 224, 224, device=arguments.device)
        rates = {dtype: matrix_rate(dtype, arguments.device) for dtype in (torch.float32, torch.bfloat16)}
        seconds = times(ours, reference, images, arguments.rounds)
        for name, value in seconds.items():
            ratio, rate = seconds["reference"] / value, rates[torch.bfloat16 if "bf" in name else torch.float32]
            share = operations * batch_size / value / rate
            print(f"| {batch_size} | {name} | {value / batch_size:.3f} | {ratio:.1f} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
