# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Time of a lite training run by part: encoder, head, synthesis, and everything else.

    python performance/lite_training.py --root Dataset_BUSI_with_GT
    python performance/lite_training.py --root Dataset_BUSI_with_GT --views 0    # paints and encodes in every step

Times are wall-clock seconds of ``Trainer.fit`` alone, validation at the end included. Head is prompts, adapters,
maps, loss, backward pass and optimiser.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import yaml
from anomalib.engine import Engine

from anomalib_mediclip import BUSI, MediCLIP

CONFIG = "configs/model/mediclip_lite.yaml"


def timed(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """Wrap a function so that the time it takes is added to an entry."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.perf_counter() - start

    return wrapper


def main() -> None:
    """Train once and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of BUSI as its authors distribute it")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--k_shot", type=int, default=16)
    parser.add_argument("--views", type=int, help="painted views of each image; 0 for none; the default unless given")
    arguments = parser.parse_args()
    with open(CONFIG, encoding="utf-8") as file:  # noqa: PTH123
        options = yaml.safe_load(file)["model"]["init_args"]
    if arguments.views is not None:
        options["views"] = arguments.views or None
    model = MediCLIP(**options, visualizer=False)
    seconds: dict[str, float] = defaultdict(float)
    model.model.vision_encoder.forward = timed(model.model.vision_encoder.forward, "encoder", seconds)  # type: ignore
    model.anomaly_generator.forward = timed(model.anomaly_generator.forward, "synthesis", seconds)  # type: ignore
    model.model.head = timed(model.model.head, "head", seconds)  # type: ignore[method-assign]
    model.loss.forward = timed(model.loss.forward, "head", seconds)  # type: ignore[method-assign]
    model.backward = timed(model.backward, "head", seconds)  # type: ignore[method-assign]
    configure = model.configure_optimizers
    model.configure_optimizers = lambda: _timed_optimizer(configure(), seconds)  # type: ignore[method-assign]
    engine = Engine(max_epochs=arguments.epochs, default_root_dir="results/performance", accelerator="cpu")
    start = time.perf_counter()
    engine.fit(model, datamodule=BUSI(arguments.root, k_shot=arguments.k_shot))
    total = time.perf_counter() - start
    _print_shares(seconds, total, arguments.epochs)


def _timed_optimizer(optimizer: torch.optim.Optimizer, seconds: dict[str, float]) -> torch.optim.Optimizer:
    """Time the update itself: Lightning runs training step and backward pass inside the optimiser's closure."""
    step = optimizer.step

    def step_with_timed_update(closure: Callable[[], Any] | None = None) -> Any:
        inside: dict[str, float] = defaultdict(float)
        start = time.perf_counter()
        result = step(timed(closure, "closure", inside) if closure else None)
        seconds["head"] += time.perf_counter() - start - inside["closure"]
        return result

    optimizer.step = step_with_timed_update  # type: ignore[method-assign]
    return optimizer


def _print_shares(seconds: dict[str, float], total: float, epochs: int) -> None:
    """Print a Markdown table."""
    parts = {name: seconds[name] for name in ("encoder", "head", "synthesis")}
    parts["everything else"] = total - sum(parts.values())
    print(f"\n{epochs} epochs, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| part | seconds | share |\n| --- | ---: | ---: |")
    for name, value in [*parts.items(), ("total", total)]:
        print(f"| {name} | {value:.1f} | {value / total:.0%} |")


if __name__ == "__main__":
    main()
