# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Changes that an encoder in bfloat16 makes to maps, order of scores and AUROC.

    python performance/precision.py --root Dataset_BUSI_with_GT --config configs/model/mediclip_lite.yaml
    python performance/precision.py --root Dataset_BUSI_with_GT --config configs/model/mediclip.yaml \
        --random --epochs 10 --every 8

A model is trained in float32 and predicts test images in both precisions; a second one is trained and predicts in
bfloat16.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from anomalib.engine import Engine
from reference import describe_machine
from scipy.stats import spearmanr
from tqdm import tqdm

from anomalib_mediclip import BUSI, MediCLIP
from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers
from anomalib_mediclip.evaluation.auroc import exact_auroc
from anomalib_mediclip.models.components.frozen_encoder import EncoderPrecision

BATCH_SIZE = 8


class Predictions(NamedTuple):
    """Anomaly maps ``(N, 1, H, W)``, scores ``(N,)`` and the two AUROC of a model's predictions."""

    maps: torch.Tensor
    scores: torch.Tensor
    image_auroc: float
    pixel_auroc: float


def train(arguments: argparse.Namespace, precision: EncoderPrecision) -> tuple[MediCLIP, BUSI]:
    """Train on 16 images."""
    options = yaml.safe_load(arguments.config.read_text())["model"]["init_args"]
    options |= {"weights": None} if arguments.random else {}
    model = MediCLIP(**options, encoder_precision=precision, visualizer=False)
    datamodule = BUSI(arguments.root, k_shot=16)
    engine = Engine(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        default_root_dir="results/performance/precision",
    )
    engine.fit(model, datamodule=datamodule)
    return model, datamodule


@torch.no_grad()
def predict(model: MediCLIP, datamodule: BUSI, every: int, in_bfloat16: bool) -> Predictions:
    """Predict every so many test images."""
    items = [datamodule.test_data[index] for index in tqdm(range(0, len(datamodule.test_data), every), "reading")]
    towers = Bfloat16Towers(model.towers if in_bfloat16 else [])
    model.model.train().eval()  # computes the prompt features
    images = torch.stack([torch.as_tensor(item.image) for item in items])
    runs = [model.model(batch) for batch in tqdm(images.split(BATCH_SIZE), "predicting")]
    towers.restore()
    maps, scores = torch.cat([run.anomaly_map for run in runs]), torch.cat([run.pred_score for run in runs])
    labels = torch.stack([torch.as_tensor(item.gt_label) for item in items])
    masks = torch.stack([torch.as_tensor(item.gt_mask) for item in items])
    pixel_auroc = exact_auroc(maps.flatten(), masks.flatten())
    return Predictions(maps, scores, exact_auroc(scores, labels).item(), pixel_auroc.item())


def main() -> None:
    """Train twice, predict three times and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of BUSI as its authors distribute it")
    parser.add_argument("--config", type=Path, default=Path("configs/model/mediclip_lite.yaml"))
    parser.add_argument("--random", action="store_true", help="random weights of the encoder")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--every", type=int, default=1, help="predict every so many test images")
    arguments = parser.parse_args()
    model, datamodule = train(arguments, "float32")
    exact, rounded = (predict(model, datamodule, arguments.every, in_bfloat16) for in_bfloat16 in (False, True))
    trained = predict(*train(arguments, "bfloat16"), arguments.every, in_bfloat16=True)
    difference = (exact.maps - rounded.maps).abs()
    print(f"\n{len(exact.scores)} images, {arguments.epochs} epochs, {arguments.config}, {describe_machine()}\n")
    print("| what | value |\n| --- | ---: |")
    print(f"| values of the float32 maps | {exact.maps.min():.3f} to {exact.maps.max():.3f} |")
    print(f"| largest and mean difference of a pixel | {difference.max():.1e}, {difference.mean():.1e} |")
    print(f"| largest difference of a score | {(exact.scores - rounded.scores).abs().max():.1e} |")
    print(f"| spread of the scores (standard deviation) | {exact.scores.std():.1e} |")
    print(f"| rank correlation of the scores | {spearmanr(exact.scores, rounded.scores).statistic:.4f} |")
    variants = {"float32": exact, "float32, predicts in bfloat16": rounded, "bfloat16": trained}
    for name, found in variants.items():
        print(f"| Image-AUROC, Pixel-AUROC, trained in {name} | {found.image_auroc:.4f}, {found.pixel_auroc:.4f} |")


if __name__ == "__main__":
    main()
