# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""How many painted views of a support image are enough: accuracy of the lite preset against fresh painting.

    python docs/results/views.py --data_root datasets --output docs/results/views.csv

Trains the lite preset on 16 images of each data set with each number of views ("fresh" paints in every epoch), three
support sets each, and tests it. The rule for the default was set before the runs: the smallest number of views whose
mean Image-AUROC and mean Pixel-AUROC are at most 0.003 below those of fresh painting. Runs that are in the file already
are not repeated.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import yaml
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from runs import Run, add_missing, datamodules

from anomalib_mediclip import MediCLIP

CONFIG = Path("configs/model/mediclip_lite.yaml")
VIEWS = (5, 10, 25, 50, None)
SEEDS = (0, 1, 2)
SHOTS = 16
COLUMNS = ("data", "k_shot", "seed", "views", "image_auroc", "pixel_auroc", "seconds_of_training")
ALLOWED_LOSS = 0.003


def runs(root: Path) -> Iterator[tuple[Run, Callable[[], list[list[str]]]]]:
    """Yield what to train."""
    for seed in SEEDS:
        for name, datamodule in datamodules(root, SHOTS, seed).items():
            for views in VIEWS:
                shown = "fresh" if views is None else str(views)
                yield (name, str(SHOTS), str(seed), shown), partial(trained, views, seed, datamodule)


def trained(views: int | None, seed: int, datamodule: AnomalibDataModule) -> list[list[str]]:
    """Train and test once, and return Image-AUROC, Pixel-AUROC (NaN without masks) and the seconds of the training."""
    options = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["model"]["init_args"]
    options |= {"memory_bank": False, "top_fraction": 0.0}  # which the preset had not then
    model = MediCLIP(**{**options, "views": views, "seed": seed}, visualizer=False)
    engine = Engine(default_root_dir="results/views", accelerator="cpu", enable_progress_bar=False, logger=False)
    start = time.perf_counter()
    engine.fit(model, datamodule=datamodule)
    seconds = time.perf_counter() - start
    (metrics,) = engine.test(model, datamodule=datamodule)
    image, pixel = metrics["image_AUROC"], metrics.get("pixel_AUROC", float("nan"))
    return [[f"{image:.4f}", f"{pixel:.4f}", f"{seconds:.1f}"]]


def print_table(file: Path) -> None:
    """Print the means over data sets and seeds, and what they lose against fresh painting."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))

    def mean(views: str, column: str) -> float:
        found = [float(row[column]) for row in rows if row["views"] == views]
        return statistics.mean(value for value in found if value == value)  # without NaN  # noqa: PLR0124

    print("\n| views | Image-AUROC | lost | Pixel-AUROC | lost | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for views in dict.fromkeys(row["views"] for row in rows):
        image, pixel = mean(views, "image_auroc"), mean(views, "pixel_auroc")
        lost = mean("fresh", "image_auroc") - image, mean("fresh", "pixel_auroc") - pixel
        seconds = mean(views, "seconds_of_training")
        print(f"| {views} | {image:.4f} | {lost[0]:.4f} | {pixel:.4f} | {lost[1]:.4f} | {seconds:.1f} |")


def main() -> None:
    """Train every combination that is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, default=Path("datasets"), help="folder that holds the data sets")
    parser.add_argument("--output", type=Path, default=Path("docs/results/views.csv"))
    arguments = parser.parse_args()
    add_missing(arguments.output, COLUMNS, runs(arguments.data_root))
    print_table(arguments.output)


if __name__ == "__main__":
    main()
