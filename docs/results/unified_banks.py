# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""One memory bank for several data sets, or one bank for each, chosen by the nearest support image.

    python docs/results/unified_banks.py --data_root datasets --output docs/results/unified_banks.csv

Trains the lite preset on 16 images of each of three data sets at once, with three seeds. Rows ``held out`` compare
normal images of the training pool that were not drawn with the same images painted; rows ``test`` are of the test set.
The criterion was set before the runs: a bank for each set only if its mean Image-AUROC on held-out images is higher by
at least 0.01. Test images decide nothing. ``right_bank`` is the share of images whose nearest support image is of their
own set. Runs that are in the file already are not repeated.
"""

import argparse
import csv
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from anomalib.engine import Engine
from runs import Run, add_missing
from torch.nn import functional

from anomalib_mediclip import MediCLIP, UnifiedData
from anomalib_mediclip.data import FewShotDataModule
from anomalib_mediclip.evaluation import exact_auroc
from anomalib_mediclip.io import read_image
from anomalib_mediclip.models.mediclip.memory_bank import MemoryBank
from anomalib_mediclip.models.mediclip.torch_model import MediCLIPModel

CONFIG = Path("configs/model/mediclip_lite.yaml")
SHOTS = 16
SEEDS = (0, 1, 2)
BATCH = 32
LEAST_GAIN = 0.01
ONE, EACH = "one bank", "a bank for each set"
COLUMNS = ("seed", "images", "data", "banks", "image_auroc", "right_bank")

Labelled = tuple[torch.Tensor, torch.Tensor]


def parts_below(root: Path) -> dict[str, dict[str, Any]]:
    """Return the data sets below a folder, as ``UnifiedData`` takes them."""
    chest = {"root": str(root / "chest_nih"), "mask_dir": "boxes/abnormal", "name": "chest_nih"}
    return {
        "BUSI": {"class_path": "BUSI", "init_args": {"root": str(root / "Dataset_BUSI_with_GT")}},
        "BrainMRI": {"class_path": "BrainMRI", "init_args": {"root": str(root / "brain_tumor_dataset")}},
        "chest_nih": {"class_path": "MedicalFolder", "init_args": chest},
    }


class Banks:
    """The parts of a trained model that depend on the support set, for all sets together and for each.

    Args:
        model (MediCLIP): Trained model.
        supports (dict[str, torch.Tensor]): Support images ``(k, 3, H, W)`` of each set.
    """

    def __init__(self, model: MediCLIP, supports: dict[str, torch.Tensor]) -> None:
        self.network: MediCLIPModel = model.eval().model
        self.together = self.network.memory_bank, self.network.map_moments.clone()
        self.of_set = {}
        descriptions = []
        for name, images in supports.items():
            features, bank = self.network.vision_encoder(images), MemoryBank()
            bank.remember([features], images.shape[-2:], [f"{name} {number}" for number in range(len(images))])
            moments = self.network.map_moments_of({}, [features], images.shape[-2:])
            self.of_set[name] = bank, moments
            descriptions.append(describe(features))
        self.descriptions = torch.cat(descriptions)
        self.sets = [name for name, images in supports.items() for _ in images]

    @torch.no_grad()
    def score(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Return scores with one bank, with the bank of the nearest support image, and the set of that image."""
        features = self.network.vision_encoder(images)
        nearest = [self.sets[number] for number in (describe(features) @ self.descriptions.T).argmax(dim=1).tolist()]
        one = self._score(*self.together, features, images)
        chosen = {name: self._score(*self.of_set[name], features, images) for name in set(nearest)}
        return one, torch.stack([chosen[name][number] for number, name in enumerate(nearest)]), nearest

    def _score(
        self, bank: Any, moments: torch.Tensor, features: list[torch.Tensor], images: torch.Tensor
    ) -> torch.Tensor:
        """Return the image scores with a bank and the moments of the learnt map that belong to it."""
        self.network.memory_bank = bank
        self.network.map_moments.copy_(moments)
        predictions: Any = self.network.head(features, images.shape[-2:])
        return predictions.pred_score


def describe(features: list[torch.Tensor]) -> torch.Tensor:
    """Describe whole images by the means of their patch features, as unit vectors ``(B, C)``."""
    return functional.normalize(torch.cat([functional.normalize(block.mean((2, 3))) for block in features], 1))


def trained(root: Path, seed: int) -> list[list[str]]:
    """Train once, and return the rows of held-out images and of the test sets."""
    options = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]["init_args"]
    datamodule = UnifiedData(parts_below(root), k_shot=SHOTS, seed=seed)
    model = MediCLIP(**{**options, "seed": seed}, visualizer=False)
    engine = Engine(
        default_root_dir="results/unified_banks", accelerator="cpu", enable_progress_bar=False, logger=False
    )
    engine.fit(model, datamodule=datamodule)
    transform = model.pre_processor.transform

    def read(paths: Sequence[Any]) -> torch.Tensor:
        return torch.stack([transform(read_image(path)).clamp(0, 1) for path in paths])

    banks = Banks(model, {name: read(part.support_set) for name, part in datamodule.parts.items()})
    rows = []
    for name, part in datamodule.parts.items():
        for kind, (images, labels) in (("held out", held_out(model, part, read)), ("test", tested(part, read))):
            found = [banks.score(batch) for batch in images.split(BATCH)]
            nearest = [each for _, _, sets in found for each in sets]
            right = sum(each == name for each in nearest) / len(nearest)
            for column, form in enumerate((ONE, EACH)):
                auroc = exact_auroc(torch.cat([scores[column] for scores in found]), labels).item()
                rows.append([kind, name, form, f"{auroc:.4f}", f"{right:.4f}"])
    return rows


def held_out(model: MediCLIP, part: FewShotDataModule, read: Callable[[Sequence[Any]], torch.Tensor]) -> Labelled:
    """Return images of the training pool that were not drawn, and the same painted."""
    pool, _ = part.read_samples()
    paths = [sample.image for sample in pool if sample.image not in part.support_set]
    images, painter = read(paths), model.painter()
    painter.set_support_set(list(images))
    painted, _ = painter(images, names=[path.name for path in paths], epoch=0)
    return torch.cat([images, painted]), torch.tensor([0] * len(images) + [1] * len(images))


def tested(part: FewShotDataModule, read: Callable[[Sequence[Any]], torch.Tensor]) -> Labelled:
    """Return the test set."""
    samples = part.test_data.samples
    return read(list(samples["image_path"])), torch.tensor(samples["label_index"].to_numpy())


def runs(root: Path) -> Iterator[tuple[Run, Callable[[], list[list[str]]]]]:
    """Yield what to train."""
    for seed in SEEDS:
        yield (str(seed),), partial(trained, root, seed)


def print_table(file: Path) -> None:
    """Print the means over seeds, and what the criterion says."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    data = list(dict.fromkeys(row["data"] for row in rows))

    def mean(images: str, banks: str, name: str | None = None) -> float:
        return statistics.mean(
            float(row["image_auroc"])
            for row in rows
            if (row["images"], row["banks"]) == (images, banks) and name in (None, row["data"])
        )

    print(f"\n| images | banks | {' | '.join(data)} | mean |\n| --- | --- |{' ---: |' * (len(data) + 1)}")
    for images in ("held out", "test"):
        for banks in (ONE, EACH):
            cells = [f"{mean(images, banks, name):.3f}" for name in data]
            print(f"| {images} | {banks} | {' | '.join(cells)} | {mean(images, banks):.3f} |")
    gain = mean("held out", EACH) - mean("held out", ONE)
    verdict = EACH if gain >= LEAST_GAIN else ONE
    print(f"\n{EACH} gains {gain:+.4f} on held-out images (at least {LEAST_GAIN} is asked for): {verdict}")


def main() -> None:
    """Train every seed that is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, default=Path("datasets"), help="folder that holds the data sets")
    parser.add_argument("--output", type=Path, default=Path("docs/results/unified_banks.csv"))
    arguments = parser.parse_args()
    add_missing(arguments.output, COLUMNS, runs(arguments.data_root))
    print_table(arguments.output)


if __name__ == "__main__":
    main()
