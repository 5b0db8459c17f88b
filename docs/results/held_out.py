# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""How the map and the image score of the lite preset were chosen: without any test image.

    python docs/results/held_out.py --data_root datasets --output docs/results/held_out.csv

The 16 support images of a data set (seed 0) are halved. A model is trained on one half with two of the three painting
tasks. It is tested on the other half: 8 normal images, and 24 images with anomalies of the third task. Both halves and
all three tasks take their turn: six trainings for each data set and encoder.

The criterion: the form with the highest mean Image-AUROC over data sets, halves and tasks. Where forms differ by less
than 0.01 it cannot tell; then the simpler one is taken, and between equally simple ones that in which evidence adds up
in logits. Runs that are in the file already are not repeated.
"""

import argparse
import csv
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from ablation import ENGINE, ROWS, TOP, Maps, Scores, mediclip_maps, options_of_preset, read, support_probabilities
from anomalib.engine import Engine
from runs import Run, add_missing, datamodules
from torch.nn import functional

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.models.mediclip.anomaly_map import upsample
from anomalib_mediclip.models.mediclip.memory_bank import MemoryBank
from anomalib_mediclip.models.mediclip.torch_model import MediCLIPModel
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

SHOTS, ROUNDS, PAINTING_SEED = 16, 3, 1234
HELD_OUT_ROWS = {name: row for name, row in ROWS.items() if row[0] != "brightness"} | {
    "memory bank of averages over 3 x 3 patches, top 5 %": ("averages", TOP),
    "joined with a bank of averages, top 5 %": ("joined averages", TOP),
}
COLUMNS = ("data", "encoder", "half", "task", "row", "image_auroc", "pixel_auroc")


def support_set(root: Path, name: str, options: dict[str, Any]) -> list[torch.Tensor]:
    """Return the support images of a data set as a model gets them, ``(3, H, W)`` in [0, 1]."""
    datamodule = datamodules(root, SHOTS, seed=0)[name]
    datamodule.setup("fit")
    transform = MediCLIP(**options, visualizer=False).pre_processor.transform
    images = [transform(torch.as_tensor(item.image)).clamp(0, 1) for item in datamodule.train_data]
    return [image.as_subclass(torch.Tensor) for image in images]


def write(file: Path, image: torch.Tensor) -> None:
    """Write an image ``(C, H, W)`` in [0, 1] as PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), (image * 255).round().byte().permute(1, 2, 0).numpy()[..., ::-1])


def write_set(folder: Path, images: list[torch.Tensor], half: int, task: str, synthesis: dict[str, Any]) -> None:
    """Write one half for training, the other with and without anomalies of a task for the test."""
    held_out = range(half, SHOTS, 2)
    generator = MedicalAnomalyGenerator(**{**synthesis, "tasks": {task: 1}}, seed=PAINTING_SEED)
    generator.set_support_set([images[index] for index in held_out])
    for index, image in enumerate(images):
        write(folder / ("test" if index in held_out else "train") / "normal" / f"{index}.png", image)
    for index in held_out:
        for painting in range(ROUNDS):
            painted, mask = generator(images[index], [f"held out/{index}"], painting)
            write(folder / "test" / "abnormal" / f"{index}_{painting}.png", painted)
            write(folder / "masks" / "abnormal" / f"{index}_{painting}.png", mask)


def tested(images: list[torch.Tensor], half: int, task: str, options: dict[str, Any]) -> Iterator[list[str]]:
    """Train on one half without a task, test on the other with it, and yield row, Image- and Pixel-AUROC."""
    synthesis = options["synthesis"]
    remaining = {name: weight for name, weight in synthesis["tasks"].items() if name != task}
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), images, half, task, synthesis)
        datamodule = MedicalFolder(folder, k_shot=SHOTS // 2, name="held_out")
        model = MediCLIP(**{**options, "synthesis": {**synthesis, "tasks": remaining}}, visualizer=False)
        Engine(default_root_dir="results/held_out", **ENGINE).fit(model, datamodule=datamodule)
        support = torch.stack([images[index] for index in range(1 - half, SHOTS, 2)])
        probabilities = support_probabilities(model, datamodule)
        maps_of = partial(all_maps, model.model, averaging_bank(model.model, support), probabilities)
        for name, image, pixel in read(Scores(HELD_OUT_ROWS), datamodule, model, maps_of).table():
            yield [name, f"{image:.4f}", f"{pixel:.4f}"]


@torch.no_grad()
def averaging_bank(model: MediCLIPModel, support: torch.Tensor) -> MemoryBank:
    """Return a memory bank of averages over 3 x 3 patches."""
    bank = MemoryBank()
    names = [f"{index}.png" for index in range(len(support))]
    bank.remember([averaged(model.eval().vision_encoder(support))], support.shape[-2:], names)
    return bank


def averaged(patch_features: list[torch.Tensor]) -> list[torch.Tensor]:
    """Average patch features over 3 x 3 patches."""
    return [functional.avg_pool2d(block, 3, 1, 1) for block in patch_features]


def all_maps(
    model: MediCLIPModel, averages: MemoryBank, support: torch.Tensor, images: torch.Tensor
) -> tuple[Maps, None]:
    """Return the maps of the ablation, and those with a memory bank of averages."""
    maps, _ = mediclip_maps(model, support, images)
    size = images.shape[-2:]
    bank = upsample(averages(averaged(model.vision_encoder(images)), size), size)
    return maps | {"averages": bank, "joined averages": maps["joined"] - maps["bank"] + bank}, None


def runs(root: Path, encoders: list[str]) -> Iterator[tuple[Run, Callable[[], Iterable[list[str]]]]]:
    """Yield what to train."""
    for encoder in encoders:
        options = options_of_preset() | {"encoder": encoder, "seed": 0}
        for name in ("BUSI", "BrainMRI", "chest_nih"):
            images = support_set(root, name, options)
            for half in (0, 1):
                for task in options["synthesis"]["tasks"]:
                    yield (name, encoder, str(half), task), partial(tested, images, half, task, options)


def print_table(file: Path) -> None:
    """Print the means of all rows."""
    with file.open(newline="", encoding="utf-8") as lines:
        found = list(csv.DictReader(lines))
    data = list(dict.fromkeys(row["data"] for row in found))
    for encoder in dict.fromkeys(row["encoder"] for row in found):
        print(f"\n{encoder}, Image-AUROC / Pixel-AUROC on held-out images and a held-out task\n")
        print(f"| row | {' | '.join(data)} | mean |\n| --- | {'---: | ' * (len(data) + 1)}")
        for name in dict.fromkeys(row["row"] for row in found):
            own = [row for row in found if (row["encoder"], row["row"]) == (encoder, name)]
            cells = []
            for chosen in (*([each] for each in data), data):
                values = [
                    [float(row[column]) for row in own if row["data"] in chosen]
                    for column in ("image_auroc", "pixel_auroc")
                ]
                means = [statistics.mean(column) for column in values]
                cells.append(" / ".join(f"{mean:.3f}" for mean in means if not math.isnan(mean)))
            print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Train every combination that is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, default=Path("datasets"), help="folder that holds the data sets")
    parser.add_argument("--output", type=Path, default=Path("docs/results/held_out.csv"))
    parser.add_argument("--encoders", nargs="+", default=["timm/tf_efficientnet_lite0.in1k"])
    arguments = parser.parse_args()
    add_missing(arguments.output, COLUMNS, runs(arguments.data_root, arguments.encoders))
    print_table(arguments.output)


if __name__ == "__main__":
    main()
