# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Which noise teaches SimpleNet the most on the lite backbone: chosen on synthetic anomalies, not on test images.

    python docs/results/simplenet_noise.py --data_root datasets --output docs/results/simplenet_noise.csv

Trains on 16 images of each data set with each standard deviation of the noise, and measures the exact AUROC on the
synthetic validation set (the support set, clean and with painted anomalies). No test image is read.
"""

import argparse
import csv
from pathlib import Path

import torch
import yaml
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine

from anomalib_mediclip import BUSI, BrainMRI, MedicalFolder, SimpleNet
from anomalib_mediclip.evaluation import exact_auroc
from anomalib_mediclip.models.simplenet.torch_model import local_features

CONFIG = Path("configs/model/simplenet_lite.yaml")
NOISES = (0.25, 0.5, 1.0)


def datamodules(root: Path) -> dict[str, AnomalibDataModule]:
    """Return the data sets, 16-shot."""
    return {
        "BUSI": BUSI(root / "Dataset_BUSI_with_GT"),
        "BrainMRI": BrainMRI(root / "brain_tumor_dataset"),
        "chest_nih": MedicalFolder(root / "chest_nih", mask_dir="boxes/abnormal", name="chest_nih"),
    }


@torch.no_grad()
def synthetic_auroc(model: SimpleNet, datamodule: AnomalibDataModule) -> float:
    """Return the Image-AUROC of the raw scores on the synthetic validation set."""
    model.eval()
    scores, labels = [], []
    for batch in datamodule.val_dataloader():
        images = model.pre_processor.transform(batch.image)
        patches = -model.model.discriminator(model.model.adaptor(local_features(model.model.vision_encoder(images))))
        scores.append(patches.amax(dim=(1, 2, 3)))
        labels.append(batch.gt_label)
    return exact_auroc(torch.cat(scores), torch.cat(labels)).item()


def main() -> None:
    """Train every combination and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, default=Path("datasets"), help="folder that holds the data sets")
    parser.add_argument("--output", type=Path, default=Path("docs/results/simplenet_noise.csv"))
    arguments = parser.parse_args()
    options = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]["init_args"]
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["data", "k_shot", "seed", "noise", "synthetic_image_auroc"])
        for noise in NOISES:
            for name, datamodule in datamodules(arguments.data_root).items():
                model = SimpleNet(**{**options, "noise": noise}, visualizer=False)
                engine = Engine(default_root_dir="results/performance", accelerator="cpu", limit_val_batches=0)
                engine.fit(model, datamodule=datamodule)
                writer.writerow([name, 16, 0, noise, f"{synthetic_auroc(model, datamodule):.4f}"])
                file.flush()


if __name__ == "__main__":
    main()
