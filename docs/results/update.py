# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Normal images that are added to a trained model, beside a training with all of them.

    python docs/results/update.py --data_root datasets --output docs/results/update.csv

Trains the lite preset on 16 of the 32 normal training images of BUSI, and adds the other 16 by
``anomalib mediclip update``: without the old images, with them (``--support``), and, with the first seed only, trained
on (``--finetune``). A training on all 32 stands beside them. ``seconds`` are those of the training without the check of
the data, and of the update with reading and writing of checkpoints, in a process that has loaded its packages.
``sensitivity`` and ``specificity`` are at the threshold of the model. Test images decide nothing. Runs that are in the
file already are not repeated.
"""

import argparse
import csv
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from anomalib.engine import Engine
from runs import Run, add_missing

from anomalib_mediclip import BUSI, MediCLIP
from anomalib_mediclip.corrections.trained import read_trained
from anomalib_mediclip.corrections.update import update_model
from anomalib_mediclip.evaluation import exact_auroc
from anomalib_mediclip.io import read_image

CONFIG = Path("configs/model/mediclip_lite.yaml")
SHOTS, ALL = 16, 32
SEEDS = (0, 1, 2)
BATCH = 32
UPDATES: dict[str, dict[str, bool]] = {
    "16 + 16, update": {},
    "16 + 16, update with the old images": {"support": True},
    "16 + 16, update and finetuning": {"support": True, "finetune": True},
}
FEW, MANY = f"{SHOTS} images, training", f"{ALL} images, training"
COLUMNS = ("seed", "model", "image_auroc", "sensitivity", "specificity", "threshold", "seconds")


class TestSet:
    """Patch features of the test images, which are the same for all models of the preset.

    Args:
        root (Path): Folder that holds the data sets.
    """

    def __init__(self, root: Path) -> None:
        datamodule, model = BUSI(root / "Dataset_BUSI_with_GT"), MediCLIP(**preset()).eval()
        datamodule.setup()
        samples, transform = datamodule.test_data.samples, model.pre_processor.transform
        paths = list(samples["image_path"])
        self.labels = torch.tensor(samples["label_index"].to_numpy())
        self.features: list[list[torch.Tensor]] = []
        with torch.no_grad():
            for start in range(0, len(paths), BATCH):
                images = torch.stack([transform(read_image(path)).clamp(0, 1) for path in paths[start : start + BATCH]])
                self.features.append(model.model.vision_encoder(images))

    @torch.no_grad()
    def row(self, model: Any) -> list[str]:
        """Return what a model is worth on the test images."""
        model.eval()
        found = [model.model.head(features, model.image_size).pred_score for features in self.features]
        scores, threshold = torch.cat(found), model.post_processor.image_threshold
        anomalous = scores > threshold
        sensitivity = anomalous[self.labels == 1].float().mean()
        specificity = (~anomalous[self.labels == 0]).float().mean()
        values = (exact_auroc(scores, self.labels), sensitivity, specificity, threshold)
        return [f"{value.item():.4f}" for value in values]


def preset() -> dict[str, Any]:
    """Return the options of the lite preset."""
    options: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]["init_args"]
    return options


def fitted(root: Path, k_shot: int, seed: int, folder: Path) -> tuple[MediCLIP, BUSI, Path, float]:
    """Train the preset, and return it with its data, its checkpoint and the seconds that the training took."""
    datamodule = BUSI(root / "Dataset_BUSI_with_GT", k_shot=k_shot, seed=seed)
    datamodule.setup()
    model = MediCLIP(**{**preset(), "seed": seed}, visualizer=False)
    engine = Engine(default_root_dir=folder, accelerator="cpu", enable_progress_bar=False, logger=False)
    start = time.perf_counter()
    engine.fit(model, datamodule=datamodule)
    return model, datamodule, Path(engine.trainer.checkpoint_callback.best_model_path), time.perf_counter() - start


def compared(root: Path, test: TestSet, seed: int) -> list[list[str]]:
    """Train twice and update, and return a row for each model."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        few, datamodule, checkpoint, seconds = fitted(root, SHOTS, seed, folder / "few")
        rows = [[FEW, *test.row(few), f"{seconds:.1f}"]]
        others = folder / "others"
        others.mkdir()
        for sample in datamodule.read_samples()[0]:
            if sample.image not in datamodule.support_set:
                shutil.copy(sample.image, others)
        for model, options in UPDATES.items():
            if "finetune" in options and seed != SEEDS[0]:
                continue
            output, start = folder / f"{model}.ckpt", time.perf_counter()
            arguments: dict[str, Any] = {**options, **({"support": datamodule.root} if options else {})}
            update_model(checkpoint, output, others, confirm=True, **arguments)
            seconds = time.perf_counter() - start
            rows.append([model, *test.row(read_trained(output).model), f"{seconds:.1f}"])
        many, _, _, seconds = fitted(root, ALL, seed, folder / "many")
        rows.append([MANY, *test.row(many), f"{seconds:.1f}"])
    return rows


def runs(root: Path) -> Iterator[tuple[Run, Callable[[], list[list[str]]]]]:
    """Yield what to train."""
    test = TestSet(root)
    for seed in SEEDS:
        yield (str(seed),), partial(compared, root, test, seed)


def print_table(file: Path) -> None:
    """Print the means over seeds, and how far each model is from the training on all images."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    many = {row["seed"]: row for row in rows if row["model"] == MANY}
    print("\n| model | Image-AUROC | difference by seed | sensitivity | specificity | seconds |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for model in (FEW, *UPDATES, MANY):
        chosen = [row for row in rows if row["model"] == model]
        differences = [float(row["image_auroc"]) - float(many[row["seed"]]["image_auroc"]) for row in chosen]
        means = [
            statistics.mean(float(row[name]) for row in chosen)
            for name in ("image_auroc", "sensitivity", "specificity", "seconds")
        ]
        by_seed = ", ".join(f"{difference:+.4f}" for difference in differences)
        print(f"| {model} | {means[0]:.4f} | {by_seed} | {means[1]:.2f} | {means[2]:.2f} | {means[3]:.1f} |")


def main() -> None:
    """Train every seed that is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, default=Path("datasets"), help="folder that holds the data sets")
    parser.add_argument("--output", type=Path, default=Path("docs/results/update.csv"))
    arguments = parser.parse_args()
    add_missing(arguments.output, COLUMNS, runs(arguments.data_root))
    print_table(arguments.output)


if __name__ == "__main__":
    main()
