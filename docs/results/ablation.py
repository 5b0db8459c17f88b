# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What each part of the lite preset is worth, beside PatchCore and SimpleNet on the same backbone.

    python docs/results/ablation.py --data_root datasets --output docs/results/ablation.csv

Trains as ``anomalib train`` does, once for each data set, number of support images, seed and model. All rows of a model
are read from the same trained model, on the same test images: memory bank and image score change nothing in training.
Image- and Pixel-AUROC are exact and of raw scores. Of the lite preset, ``false_alarms`` is the share of normal test
images that the calibrated model calls anomalous, ``expected`` the share that the calibration expects, and ``counted``
that of the support images. Runs that are in the file already are not repeated.
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
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from runs import add_missing, datamodules

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.benchmark.factory import build_model
from anomalib_mediclip.evaluation.auroc import exact_auroc
from anomalib_mediclip.models.mediclip.anomaly_map import upsample
from anomalib_mediclip.models.mediclip.torch_model import MediCLIPModel, image_score

CONFIGS = Path("configs/model")
TOP = 0.05
COLUMNS = (
    *("data", "k_shot", "seed", "model", "row", "image_auroc", "pixel_auroc"),
    *("false_alarms", "expected", "counted"),
)
ROWS = {  # the map, and the share of pixels that are averaged
    "learnt map, maximum (paper)": ("learnt", 0.0),
    "learnt map, top 5 %": ("learnt", TOP),
    "memory bank, maximum": ("bank", 0.0),
    "memory bank, top 5 %": ("bank", TOP),
    "joined, maximum": ("joined", 0.0),
    "joined, top 5 % (lite preset)": ("joined", TOP),
    "probability joined, top 5 %": ("probability", TOP),
    "joined, bank counted twice, top 5 %": ("twice", TOP),
    "mean brightness or darkness, the better": ("brightness", 1.0),
}
PRESET = "joined, top 5 % (lite preset)"
BASELINE_ROWS = {"own image score": ("map", None), "top 5 %": ("map", TOP)}
WITHOUT_PIXELS = {"probability", "brightness"}  # rows for the image score only
ENGINE: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}

Maps = dict[str, torch.Tensor]


class Scores:
    """Scores of a test set, row by row.

    Args:
        rows (dict[str, tuple[str, float | None]]): Name of the map, and share of the pixels that are averaged; None for
            the model's own image score.
    """

    def __init__(self, rows: dict[str, tuple[str, float | None]]) -> None:
        self._rows = rows
        self._images: dict[str, list[torch.Tensor]] = {name: [] for name in rows}
        self._pixels: dict[str, list[torch.Tensor]] = {
            name: [] for name, _ in rows.values() if name not in WITHOUT_PIXELS
        }
        self._labels: list[torch.Tensor] = []
        self._masks: list[torch.Tensor] = []

    def add(self, maps: Maps, own: torch.Tensor | None, batch: Any) -> None:
        """Add a batch: maps ``(B, 1, H, W)`` by name, and the model's own image scores ``(B,)``."""
        for row, (name, top) in self._rows.items():
            self._images[row].append(own if top is None else image_score(maps[name], top))
        self._labels.append(batch.gt_label.bool())
        if batch.gt_mask is not None:
            size = maps[next(iter(maps))].shape[-2:]
            masks = torch.nn.functional.interpolate(batch.gt_mask[:, None].float(), size)[:, 0].bool()
            known = masks.flatten(1).any(dim=1) | ~batch.gt_label.bool()
            self._masks.append(masks[known].flatten())
            for name, pixels in self._pixels.items():
                pixels.append(maps[name][known].flatten().half())

    def normal(self, row: str) -> torch.Tensor:
        """Return the scores of normal images."""
        return torch.cat(self._images[row])[~torch.cat(self._labels)]

    def table(self) -> Iterator[tuple[str, float, float]]:
        """Yield the name of each row, its Image-AUROC, and its Pixel-AUROC (NaN where there is none)."""
        pixel = dict.fromkeys(self._pixels, float("nan"))
        if self._masks:
            masks = torch.cat(self._masks)
            pixel = {name: exact_auroc(torch.cat(parts).float(), masks).item() for name, parts in self._pixels.items()}
        for row, (name, _) in self._rows.items():
            image = exact_auroc(torch.cat(self._images[row]), torch.cat(self._labels)).item()
            image = max(image, 1 - image) if name == "brightness" else image
            yield row, image, pixel.get(name, float("nan"))


@torch.no_grad()
def read(scores: Scores, datamodule: AnomalibDataModule, model: Any, maps_of: Callable[..., Any]) -> Scores:
    """Add the whole test set."""
    datamodule.setup("test")
    model.eval()
    for batch in datamodule.test_dataloader():
        images = model.pre_processor.transform(torch.as_tensor(batch.image)).as_subclass(torch.Tensor)
        scores.add(*maps_of(images), batch)
    return scores


def parts_of(
    model: MediCLIPModel, features: list[torch.Tensor], size: torch.Size
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits of the learnt map, z-scores of the memory bank, and the map that joins them, ``(B, 1, H, W)``."""
    bank = upsample(model.memory_bank(features, size), size)
    joined = model.head(features, size).anomaly_map
    return (joined - bank) * model.map_moments[1] + model.map_moments[0], bank, joined


def mediclip_maps(model: MediCLIPModel, support: torch.Tensor, images: torch.Tensor) -> tuple[Maps, None]:
    """Return every map of images in [0, 1]; S_a of the support images is given for its moments."""
    images = images.clamp(0, 1)
    learnt, bank, joined = parts_of(model, model.vision_encoder(images), images.shape[-2:])
    probability = (learnt.sigmoid() - support.mean()) / support.std(correction=0)
    return {
        "learnt": learnt,
        "bank": bank,
        "joined": joined,
        "probability": probability + bank,
        "twice": joined + bank,
        "brightness": images.mean(dim=1, keepdim=True),
    }, None


@torch.no_grad()
def support_probabilities(model: MediCLIP, datamodule: AnomalibDataModule) -> torch.Tensor:
    """Return S_a of the support images."""
    transform = model.pre_processor.transform
    images = torch.stack([transform(torch.as_tensor(item.image)).clamp(0, 1) for item in datamodule.train_data])
    images = images.as_subclass(torch.Tensor)
    network = model.eval().model
    return parts_of(network, network.vision_encoder(images), images.shape[-2:])[0].sigmoid()


def options_of_preset() -> dict[str, Any]:
    """Return the arguments of the lite preset."""
    configuration: dict[str, Any] = yaml.safe_load((CONFIGS / "mediclip_lite.yaml").read_text(encoding="utf-8"))
    arguments: dict[str, Any] = configuration["model"]["init_args"]
    return arguments


def mediclip(encoder: str, seed: int, datamodule: AnomalibDataModule) -> list[list[str]]:
    """Train and test the lite preset, and return what follows the first four columns."""
    model = MediCLIP(**{**options_of_preset(), "encoder": encoder, "seed": seed}, visualizer=False)
    Engine(default_root_dir="results/ablation", **ENGINE).fit(model, datamodule=datamodule)
    maps_of = partial(mediclip_maps, model.model, support_probabilities(model, datamodule))
    scores = read(Scores(ROWS), datamodule, model, maps_of)
    processor = model.post_processor
    threshold = processor.image_threshold
    shares = [
        (scores.normal(PRESET) > threshold).float().mean().item(),
        processor.expected_false_alarms,
        (processor.normal_scores > threshold).float().mean().item(),
    ]
    shown = [f"{share:.4f}" for share in shares]
    return [[*row, *(shown if row[0] == PRESET else ["", "", ""])] for row in written(scores)]


def baseline(name: str, seed: int, datamodule: AnomalibDataModule) -> list[list[str]]:
    """Train and test a baseline, and return what follows the first four columns."""
    configuration, changes = BASELINES[name]
    options: dict[str, Any] = yaml.safe_load((CONFIGS / configuration).read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    model: Any = build_model({**options["model"], "init_args": options["model"]["init_args"] | changes}, seed)
    length = options.get("trainer", {})
    Engine(default_root_dir="results/ablation", **ENGINE, **length).fit(model, datamodule=datamodule)

    def maps_of(images: torch.Tensor) -> tuple[Maps, torch.Tensor]:
        found = model.model(images)
        return {"map": found.anomaly_map}, found.pred_score.flatten()

    return [[*row, "", "", ""] for row in written(read(Scores(BASELINE_ROWS), datamodule, model, maps_of))]


def written(scores: Scores) -> Iterator[tuple[str, str, str]]:
    """Yield a table as text."""
    for row, image, pixel in scores.table():
        yield row, f"{image:.4f}", f"{pixel:.4f}"


BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "PatchCore, 10 % of patches": ("patchcore_lite.yaml", {"coreset_sampling_ratio": 0.1}),
    "PatchCore, 1 % of patches": ("patchcore_lite.yaml", {"coreset_sampling_ratio": 0.01}),
    "SimpleNet": ("simplenet_lite.yaml", {}),
}
LITE = {f"MediCLIP, EfficientNet-Lite{number}": f"timm/tf_efficientnet_lite{number}.in1k" for number in (0, 1, 2)}
MODELS: dict[str, Callable[[int, AnomalibDataModule], list[list[str]]]] = {
    **{name: partial(mediclip, encoder) for name, encoder in LITE.items()},
    **{name: partial(baseline, name) for name in BASELINES},
}


def mean_and_spread(values: Sequence[float]) -> str:
    """Write the mean and, of several values, the standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def print_tables(file: Path) -> None:
    """Print mean and standard deviation over seeds, a table for each number of support images."""
    with file.open(newline="", encoding="utf-8") as lines:
        found = list(csv.DictReader(lines))
    data = list(dict.fromkeys(row["data"] for row in found))
    for k_shot in dict.fromkeys(row["k_shot"] for row in found):
        print(f"\nk = {k_shot}, Image-AUROC / Pixel-AUROC\n")
        print(
            f"| model | map and image score | {' | '.join(data)} | mean |\n| --- | --- | {'--- | ' * len(data)}---: |"
        )
        here = [row for row in found if row["k_shot"] == k_shot]
        for model, name in dict.fromkeys((row["model"], row["row"]) for row in here):
            own = [row for row in here if (row["model"], row["row"]) == (model, name)]
            cells, means = [], []
            for each in data:
                image = [float(row["image_auroc"]) for row in own if row["data"] == each]
                pixel = [float(row["pixel_auroc"]) for row in own if row["data"] == each]
                if not image:
                    cells.append("")
                    continue
                means.append(statistics.mean(image))
                cells.append(mean_and_spread(image) + (f" / {mean_and_spread(pixel)}" if pixel[0] == pixel[0] else ""))
            print(f"| {model} | {name} | {' | '.join(cells)} | {statistics.mean(means):.3f} |")
    print("\n| model | data | k | false alarms | expected | counted on the support set |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    preset = [row for row in found if row["false_alarms"]]
    for key in dict.fromkeys((row["model"], row["data"], row["k_shot"]) for row in preset):
        chosen = [row for row in preset if (row["model"], row["data"], row["k_shot"]) == key]
        shares = [statistics.mean(float(r[name]) for r in chosen) for name in ("false_alarms", "expected", "counted")]
        print(f"| {' | '.join(key)} | {' | '.join(f'{share:.3f}' for share in shares)} |")


def main() -> None:
    """Train every combination that is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", type=Path, default=Path("datasets"), help="folder that holds the data sets")
    parser.add_argument("--output", type=Path, default=Path("docs/results/ablation.csv"))
    parser.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        default=list(MODELS),
        metavar="NAME",
        help=", ".join(MODELS).replace("%", "%%"),
    )
    parser.add_argument("--k_shots", nargs="+", type=int, default=[16, 4, 8, 32])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    add_missing(
        arguments.output,
        COLUMNS,
        (
            ((name, str(k_shot), str(seed), model), partial(MODELS[model], seed, datamodule))
            for model in arguments.models
            for k_shot in arguments.k_shots
            for seed in arguments.seeds
            for name, datamodule in datamodules(arguments.data_root, k_shot, seed).items()
        ),
    )
    print_tables(arguments.output)


if __name__ == "__main__":
    main()
