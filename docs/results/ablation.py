# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What each part of the lite preset is worth: learnt map, memory bank, rule of the image score.

    python docs/results/ablation.py --data_root datasets --output docs/results/ablation.csv

Trains the lite preset as ``anomalib train`` does, once for each data set, number of support images, seed and encoder.
All rows are read from the same trained model, on the same test images: the parts change nothing in training. Image- and
Pixel-AUROC are exact. ``false_alarms`` is the share of normal test images that the calibrated model calls anomalous,
``promised`` that of the normal images it was calibrated on. Runs that are in the file already are not repeated.
"""

import argparse
import csv
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from lightning import Callback
from runs import add_missing, datamodules

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.evaluation.auroc import exact_auroc
from anomalib_mediclip.models.mediclip.anomaly_map import upsample
from anomalib_mediclip.models.mediclip.torch_model import MediCLIPModel, image_score

CONFIG = Path("configs/model/mediclip_lite.yaml")
TOP = 0.05
COLUMNS = ("data", "k_shot", "seed", "encoder", "row", "image_auroc", "pixel_auroc", "false_alarms", "promised")
ROWS = {  # the map, and the share of pixels that are averaged
    "learnt map, maximum (paper)": ("learnt", 0.0),
    "learnt map, top 5 %": ("learnt", TOP),
    "memory bank, maximum": ("bank", 0.0),
    "memory bank, top 5 %": ("bank", TOP),
    "joined, maximum": ("joined", 0.0),
    "joined, top 5 % (lite preset)": ("joined", TOP),
    "probability joined, top 5 %": ("probability", TOP),
    "joined, bank counted twice, top 5 %": ("twice", TOP),
    "mean brightness": ("brightness", 1.0),
}
PRESET = "joined, top 5 % (lite preset)"


class Rows(Callback):
    """Computes the maps of all rows for every batch of a test, and collects their scores."""

    def __init__(self, support: torch.Tensor) -> None:
        self._moments = torch.stack([support.mean(), support.std(correction=0)])
        self.scores: dict[str, list[torch.Tensor]] = {name: [] for name in ROWS}
        self.pixels: dict[str, list[torch.Tensor]] = {name: [] for name, _ in ROWS.values()}
        self.labels: list[torch.Tensor] = []
        self.masks: list[torch.Tensor] = []
        self.called: list[torch.Tensor] = []

    def on_test_batch_end(self, trainer: object, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Collect a batch, whose images are encoded once more."""
        del trainer
        maps = self._maps(pl_module.model, batch.image)
        for name, (map_name, top) in ROWS.items():
            self.scores[name].append(image_score(maps[map_name], top))
        self.labels.append(batch.gt_label)
        self.called.append(outputs.pred_score.flatten() > pl_module.post_processor.image_threshold)
        if batch.gt_mask is not None:
            known = (batch.gt_mask.flatten(1).any(dim=1)) | ~batch.gt_label.bool()
            self.masks.append(batch.gt_mask[known].flatten())
            for name, anomaly_map in maps.items():
                self.pixels[name].append(anomaly_map[known].flatten().half())

    def _maps(self, model: MediCLIPModel, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return every map ``(B, 1, H, W)``."""
        features, size = model.vision_encoder(images), images.shape[-2:]
        learnt, bank, joined = parts_of(model, features, size)
        probability = (learnt.sigmoid() - self._moments[0]) / self._moments[1]
        brightness = images.mean(dim=1, keepdim=True)
        return {
            "learnt": learnt,
            "bank": bank,
            "joined": joined,
            "probability": probability + bank,
            "twice": joined + bank,
            "brightness": brightness,
        }

    def rows(self) -> Iterator[tuple[str, float, float]]:
        """Yield the name of each row, its Image-AUROC and its Pixel-AUROC (NaN without masks)."""
        labels = torch.cat(self.labels)
        for name, (map_name, _) in ROWS.items():
            pixel = float("nan")
            if self.masks:
                pixel = exact_auroc(torch.cat(self.pixels[map_name]).float(), torch.cat(self.masks)).item()
            yield name, exact_auroc(torch.cat(self.scores[name]), labels).item(), pixel

    def false_alarms(self) -> float:
        """Return the share of normal images that are called anomalous."""
        return torch.cat(self.called)[~torch.cat(self.labels).bool()].float().mean().item()


class Promise(Callback):
    """Collects the raw scores of the normal images of a validation."""

    def __init__(self) -> None:
        self.scores: list[torch.Tensor] = []

    def on_validation_batch_end(self, trainer: object, pl_module: object, outputs: Any, batch: Any, *_: Any) -> None:
        """Collect those of a batch."""
        del trainer, pl_module, batch
        self.scores.append(outputs.pred_score[~outputs.gt_label.bool()])


def tested(encoder: str, seed: int, datamodule: AnomalibDataModule) -> list[list[str]]:
    """Train and test once, and return row, Image-AUROC, Pixel-AUROC, false alarms and what was promised."""
    options = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]["init_args"]
    model = MediCLIP(**{**options, "encoder": encoder, "seed": seed}, visualizer=False)
    arguments: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    Engine(default_root_dir="results/ablation", **arguments).fit(model, datamodule=datamodule)
    promise = Promise()
    Engine(default_root_dir="results/ablation", callbacks=[promise], **arguments).validate(model, datamodule=datamodule)
    threshold = model.post_processor.image_threshold
    promised = (torch.cat(promise.scores) > threshold).float().mean().item()
    rows = Rows(support_probabilities(model, datamodule))
    Engine(default_root_dir="results/ablation", callbacks=[rows], **arguments).test(model, datamodule=datamodule)
    shares = f"{rows.false_alarms():.4f}", f"{promised:.4f}"
    return [
        [name, f"{image:.4f}", f"{pixel:.4f}", *(shares if name == PRESET else ("", ""))]
        for name, image, pixel in rows.rows()
    ]


@torch.no_grad()
def support_probabilities(model: MediCLIP, datamodule: AnomalibDataModule) -> torch.Tensor:
    """Return S_a of the support images."""
    transform = model.pre_processor.transform
    images = torch.stack([transform(torch.as_tensor(item.image)).clamp(0, 1) for item in datamodule.train_data])
    images = images.as_subclass(torch.Tensor)
    network = model.eval().model
    features = network.vision_encoder(images)
    learnt, _, _ = parts_of(network, features, images.shape[-2:])
    return learnt.sigmoid()


def parts_of(
    model: MediCLIPModel, features: list[torch.Tensor], size: torch.Size
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits of the learnt map, z-scores of the memory bank, and the map that joins them, ``(B, 1, H, W)``."""
    bank = upsample(model.memory_bank(features, size), size)
    joined = model.head(features, size).anomaly_map
    return (joined - bank) * model.map_moments[1] + model.map_moments[0], bank, joined


def print_tables(file: Path) -> None:
    """Print mean and standard deviation over seeds, one table for each encoder and number of support images."""
    with file.open(newline="", encoding="utf-8") as lines:
        found = list(csv.DictReader(lines))
    data = list(dict.fromkeys(row["data"] for row in found))
    for encoder, k_shot in dict.fromkeys((row["encoder"], row["k_shot"]) for row in found):
        print(f"\n{encoder}, k = {k_shot}, Image-AUROC / Pixel-AUROC\n")
        print(f"| row | {' | '.join(data)} | mean |\n| --- | {'---: | ' * (len(data) + 1)}")
        for name in ROWS:
            chosen = [r for r in found if (r["encoder"], r["k_shot"], r["row"]) == (encoder, k_shot, name)]
            cells, means = [], []
            for each in data:
                image = [float(row["image_auroc"]) for row in chosen if row["data"] == each]
                pixel = [float(row["pixel_auroc"]) for row in chosen if row["data"] == each]
                means.append(statistics.mean(image))
                shown = f"{means[-1]:.3f} +- {statistics.pstdev(image):.3f}"
                has_masks = pixel[0] == pixel[0]  # not NaN
                cells.append(f"{shown} / {statistics.mean(pixel):.3f}" if has_masks else shown)
            print(f"| {name} | {' | '.join(cells)} | {statistics.mean(means):.3f} |")
    preset = [row for row in found if row["false_alarms"]]
    print("\n| data | k | false alarms | promised |\n| --- | ---: | ---: | ---: |")
    for each, k_shot in dict.fromkeys((row["data"], row["k_shot"]) for row in preset):
        chosen = [row for row in preset if (row["data"], row["k_shot"]) == (each, k_shot)]
        alarms, promised = (statistics.mean(float(r[name]) for r in chosen) for name in ("false_alarms", "promised"))
        print(f"| {each} | {k_shot} | {alarms:.3f} | {promised:.3f} |")


def main() -> None:
    """Train every combination that is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, default=Path("datasets"), help="folder that holds the data sets")
    parser.add_argument("--output", type=Path, default=Path("docs/results/ablation.csv"))
    parser.add_argument("--encoders", nargs="+", default=["timm/tf_efficientnet_lite0.in1k"])
    parser.add_argument("--k_shots", nargs="+", type=int, default=[16, 4, 8, 32])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    add_missing(
        arguments.output,
        COLUMNS,
        (
            ((name, str(k_shot), str(seed), encoder), partial(tested, encoder, seed, datamodule))
            for encoder in arguments.encoders
            for k_shot in arguments.k_shots
            for seed in arguments.seeds
            for name, datamodule in datamodules(arguments.data_root, k_shot, seed).items()
        ),
    )
    print_tables(arguments.output)


if __name__ == "__main__":
    main()
