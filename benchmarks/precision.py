# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What an encoder in bfloat16 changes in the maps and in the order of the scores.

    python benchmarks/precision.py images/*.png

The learnt weights are the initial ones; without ``--weights`` the encoder is random.
"""

import argparse
from pathlib import Path

import torch
from reference import describe_machine
from scipy.stats import spearmanr
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.io import read_image
from anomalib_mediclip.models.bfloat16 import Bfloat16Towers
from anomalib_mediclip.models.mediclip import MediCLIPModel


@torch.no_grad()
def main() -> None:
    """Predict every image in both precisions and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--encoder", default="ViT-L-14-quickgelu")
    parser.add_argument("--weights")
    parser.add_argument("--layers", type=int, nargs="+", default=[12, 18, 24])
    arguments = parser.parse_args()
    model = MediCLIPModel(arguments.encoder, arguments.weights, arguments.layers)
    images = torch.stack([resize(read_image(path), [224, 224], antialias=True) for path in arguments.images])
    exact = [model.eval()(image[None]) for image in images]
    Bfloat16Towers(model.frozen_towers)
    model.train().eval()  # prompt features too
    rounded = [model(image[None]) for image in images]
    differences = torch.cat([(a.anomaly_map - b.anomaly_map).abs() for a, b in zip(exact, rounded, strict=True)])
    maps = torch.cat([prediction.anomaly_map for prediction in exact])
    scores = [torch.cat([prediction.pred_score for prediction in run]) for run in (exact, rounded)]
    print(f"\n{len(images)} images, {arguments.encoder}, {describe_machine()}\n")
    print("| what | value |\n| --- | ---: |")
    print(f"| values of the float32 maps | {maps.min():.3f} to {maps.max():.3f} |")
    print(f"| largest difference of a pixel | {differences.max():.1e} |")
    print(f"| mean difference of a pixel | {differences.mean():.1e} |")
    print(f"| largest difference of a score | {(scores[0] - scores[1]).abs().max():.1e} |")
    print(f"| spread of the scores (standard deviation) | {scores[0].std():.1e} |")
    print(f"| rank correlation of the scores | {spearmanr(*scores).statistic:.4f} |")


if __name__ == "__main__":
    main()
