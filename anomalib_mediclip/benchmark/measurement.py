# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Train and test one model on one support set, and measure what it costs."""

import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from tempfile import TemporaryDirectory
from typing import Any

import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from lightning import Callback, seed_everything

from anomalib_mediclip.benchmark.factory import build_model
from anomalib_mediclip.benchmark.raw_predictions import RawPredictions
from anomalib_mediclip.data import FewShotDataModule
from anomalib_mediclip.memory import large_blocks_apart

MEGABYTE = 1024**2
LATENCY_IMAGES = 20  # after WARM_UP
WARM_UP = 3
PACKAGES = ("anomalib-mediclip", "anomalib", "torch", "torchvision", "lightning", "timm", "open_clip_torch")


def peak_memory(device: torch.device) -> float:
    """Measure the most memory used so far: resident memory of this process on a CPU, allocated memory on a GPU.

    Args:
        device (torch.device): Where the model runs.

    Returns:
        float: MiB. On a CPU the libraries are included, some 600 MiB; NaN on Windows, which does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    if sys.platform == "win32":
        return float("nan")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


def measure(
    model: dict[str, Any],
    datamodule: FewShotDataModule,
    seed: int,
    device: torch.device,
    tests: Mapping[str, FewShotDataModule],
) -> dict[str, tuple[dict[str, Any], RawPredictions]]:
    """Train a model on a support set for its own number of epochs or steps, and test its last weights.

    Args:
        model (dict[str, Any]): ``class_path``, ``init_args`` and ``trainer``, arguments of the trainer.
        datamodule (FewShotDataModule): Data module to train on, set up.
        seed (int): Seed of the model and of the global generators.
        device (torch.device): Where to run.
        tests (Mapping[str, FewShotDataModule]): Data modules to test on by name, set up.

    Returns:
        dict[str, tuple[dict[str, Any], RawPredictions]]: For every test set the columns of the benchmark's row, and the
        raw predictions.
    """
    seed_everything(seed, workers=True, verbose=False)
    built = build_model(model, seed)
    measured = {}
    with TemporaryDirectory() as folder:
        engine = _engine(folder, [], device, model.get("trainer", {}))
        start = time.perf_counter()
        with large_blocks_apart() if isinstance(built, MemoryBankMixin) else nullcontext():
            engine.fit(built, datamodule=datamodule)
        learnt = {id(p): p.numel() for optimizer in engine.trainer.optimizers for p in _parameters(optimizer)}
        costs = {
            "steps": engine.trainer.global_step,
            "fit_seconds": time.perf_counter() - start,
            "trainable_parameters": sum(learnt.values()),
        }
        for name, tested in tests.items():
            predictions = RawPredictions()
            seconds = _test(built, tested, _engine(folder, [predictions], device, model.get("trainer", {})))
            measured[name] = (
                {
                    **costs,
                    "test_seconds": seconds,
                    "images_per_second": len(tested.test_data) / seconds,
                    "peak_memory_mb": peak_memory(device),
                    "latency_ms": 1000 * latency(built, tested, device),
                    **predictions.metrics(),
                },
                predictions,
            )
    return measured


def _test(model: AnomalibModule, datamodule: FewShotDataModule, engine: Engine) -> float:
    """Test a model, and return the seconds that it takes."""
    start = time.perf_counter()
    engine.test(model, datamodule=datamodule, verbose=False)
    return time.perf_counter() - start


def _engine(folder: str, callbacks: list[Callback], device: torch.device, trainer: dict[str, Any]) -> Engine:
    """Return a quiet engine that neither validates nor writes anything but into the folder."""
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,  # validation calibrates shown scores; raw scores need none
        "num_sanity_val_steps": 0,
    }
    return Engine(
        default_root_dir=folder,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        callbacks=[*callbacks, ModelCheckpoint(save_top_k=0)],
        **{**quiet, **trainer},
    )


def _parameters(optimizer: Any) -> list[torch.nn.Parameter]:
    """Return the parameters that an optimiser changes."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


@torch.no_grad()
def latency(model: AnomalibModule, datamodule: FewShotDataModule, device: torch.device) -> float:
    """Measure the time from an image in memory, at its own size, to its anomaly map.

    Args:
        model (AnomalibModule): Model with its pre-processor.
        datamodule (FewShotDataModule): Its first test images are used.
        device (torch.device): Where to run.

    Returns:
        float: Median in seconds over images, one at a time.
    """
    model.to(device).eval()
    seconds = []
    for index in range(min(WARM_UP + LATENCY_IMAGES, len(datamodule.test_data))):
        item: Any = datamodule.test_data[index]
        image = item.image[None].to(device)
        start = time.perf_counter()
        predictions = model(image)
        # copied back: a GPU works on after the call has returned
        (predictions.pred_score if predictions.anomaly_map is None else predictions.anomaly_map).cpu()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[min(WARM_UP, len(seconds) - 1) :])
