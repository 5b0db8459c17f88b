# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A small benchmark with made-up scores: 2 data sets, k = 4 and 16, 3 seeds, 3 models, with holes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.benchmark.results import COLUMNS, TEXT_COLUMNS, TRIVIAL, Results

MODELS = {"MediCLIP": 2.5, "SimpleNet": 0.8}  # and how far apart they keep normal and anomalous
BROKEN = "Patch|Core"  # fails everywhere; its name would break a Markdown table
NORMAL, ANOMALOUS = 12, 18
PIXEL_AUROC = {"MediCLIP": [0.85, 0.86, 0.87], "SimpleNet": [0.6, 0.6, 0.63]}


def job(data: str, k_shot: int | None, seed: int | None, model: str, **figures: Any) -> dict[str, Any]:
    """A row of results.csv."""
    return {
        "trained_on": data, "tested_on": data, "k_shot": k_shot, "seed": seed, "model": model,
        "support_set_hash": f"{data}{k_shot}{seed}" * 9,
        "device": "cpu", "versions": "anomalib 2.7.0", "steps": 200, "fit_seconds": 60, "test_seconds": 3.25,
        "images_per_second": 9.23, "latency_ms": 12.5, "peak_memory_mb": 1024, "trainable_parameters": 409600,
        **figures,
    }  # fmt: skip


def trivial(data: str, **figures: Any) -> dict[str, Any]:
    """The row of the trivial baseline."""
    return {
        "trained_on": data,
        "tested_on": data,
        "model": TRIVIAL,
        "device": "cpu",
        "versions": "anomalib 2.7.0",
        **figures,
    }


def failure(data: str, k_shot: int, seed: int, model: str, error: str) -> dict[str, Any]:
    """The row of a failed job."""
    identity = {"trained_on": data, "tested_on": data, "k_shot": k_shot, "seed": seed, "model": model}
    return {**identity, "device": "cpu", "error": error}


def as_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as read from results.csv."""
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype({"k_shot": "Int64", "seed": "Int64"})
    table[list(TEXT_COLUMNS)] = table[list(TEXT_COLUMNS)].astype(object).fillna("")
    return table


def as_results(*rows: dict[str, Any], scores: dict[str, pd.DataFrame] | None = None) -> Results:
    """Results without files."""
    table = as_table(list(rows))
    return Results(rows=table.assign(data=table["tested_on"]), scores=scores or {}, examples={})


def save_benchmark(folder: Path) -> Path:
    """Write results.csv, scores/ and examples/: BUSI has masks and examples, BrainMRI neither."""
    generator = np.random.default_rng(0)
    labels = np.array([0] * NORMAL + [1] * ANOMALOUS)
    rows: list[dict[str, Any]] = []
    (folder / "scores").mkdir(parents=True)
    for data in ("BUSI", "BrainMRI"):
        scores: dict[str, Any] = {"image": [f"{number}.png" for number in range(len(labels))], "label": labels}
        for k_shot in (4, 16):
            for seed in range(3):
                rows.append(failure(data, k_shot, seed, BROKEN, "ValueError: no <module> 'patch'"))
                for model, distance in MODELS.items():
                    if (data, k_shot, seed, model) == ("BrainMRI", 16, 1, "SimpleNet"):
                        rows.append(failure(data, k_shot, seed, model, "OutOfMemoryError: 2 GiB"))
                        continue
                    values = (distance * labels + generator.normal(size=len(labels))).round(3)
                    scores[f"{model} k{k_shot} seed{seed}"] = values
                    pixels = {"pixel_auroc": PIXEL_AUROC[model][seed]} if data == "BUSI" else {}
                    rows.append(job(data, k_shot, seed, model, image_auroc=roc_auc_score(labels, values), **pixels))
        scores[TRIVIAL] = generator.normal(size=len(labels)).round(3)
        pixels = {"pixel_auroc": 0.7} if data == "BUSI" else {}
        rows.append(trivial(data, image_auroc=roc_auc_score(labels, scores[TRIVIAL]), **pixels))
        pd.DataFrame(scores).to_csv(folder / "scores" / f"{data}.csv", index=False)
    as_table(rows).to_csv(folder / "results.csv", index=False)
    save_examples(folder / "examples" / "BUSI.npz")
    return folder


def save_examples(path: Path) -> None:
    """Write four images with maps."""
    generator = np.random.default_rng(1)
    masks = np.zeros((4, 40, 60), dtype=np.uint8)
    masks[:3, 10:20, 10:30] = 1
    path.parent.mkdir(parents=True)
    np.savez_compressed(
        path,
        names=np.array([f"b<{number}>.png" for number in range(4)]),
        labels=np.array([1, 1, 1, 0]),
        images=generator.integers(0, 255, (4, 40, 60, 3), dtype=np.uint8),
        masks=masks,
        k_shot=16,
        seed=0,
        **{f"map:{model}": generator.normal(size=(4, 40, 60)).astype(np.float16) for model in MODELS},
    )
