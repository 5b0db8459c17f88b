# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Duration of a whole run with ViT-L/14, from the start of the process to metrics: 16 shots, 200 epochs, test.

    python performance/whole_run.py                # half an hour on two CPU cores without AMX
    python performance/whole_run.py --epochs 20    # a tenth of the training, multiplied by ten

Ours is what ``anomalib train`` does with the paper's configuration, weights apart, which are random and take as long as
CLIP's. Of the reference ten steps are timed, synthesis included, and one batch of the test; the rest is multiplied. Its
start is taken to be ours; it is not calibrated.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from anomalib.engine import Engine  # noqa: E402
from lightning import Callback  # noqa: E402
from reference import LARGE, ReferenceModel, alternate, describe_machine, seconds_of  # noqa: E402
from synthesis import TASKS, Reference, read_images  # noqa: E402
from training_step import training_step  # noqa: E402

from anomalib_mediclip import MedicalFolder, MediCLIP  # noqa: E402

SHOTS, EPOCHS, BATCH_SIZE = 16, 200, 8
STEPS = EPOCHS * SHOTS // BATCH_SIZE


class Clock(Callback):
    """Adds up the seconds of a run's parts; the validation that calibrates the scores is not part of the training."""

    def __init__(self) -> None:
        self.seconds = {"start": 0.0, "training": 0.0, "calibration and test": 0.0}
        self._part, self._since = "start", START

    def enter(self, part: str) -> None:
        """Begin a part, and end the one before."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    def on_train_start(self, trainer: object, pl_module: object) -> None:
        """Begin the training."""
        del trainer, pl_module
        self.enter("training")

    def on_validation_start(self, trainer: object, pl_module: object) -> None:
        """Begin the calibration, with which the training ends."""
        del trainer, pl_module
        self.enter("calibration and test")


def our_run(root: Path, accelerator: str, epochs: int) -> dict[str, float]:
    """Train and test as the command does, and return the seconds of the parts of a run of 200 epochs."""
    clock = Clock()
    engine = Engine(
        accelerator=accelerator,
        devices=1,
        max_epochs=epochs,
        default_root_dir="results/performance/whole_run",
        callbacks=[clock],
    )
    engine.train(MediCLIP(weights=None, visualizer=False), datamodule=MedicalFolder(root, k_shot=SHOTS))
    clock.enter("end")
    return clock.seconds | {"training": clock.seconds["training"] * EPOCHS / epochs}


def reference_run(root: Path, device: str) -> dict[str, float]:
    """Time ten steps and a batch of the test, and return the seconds of the parts of a run of 200 epochs."""
    images = read_images(root / "train" / "normal", BATCH_SIZE).to(device)
    model = ReferenceModel(**LARGE).to(device)
    step = _reference_step(model, images)
    training = alternate({"step": lambda: seconds_of(step)}, rounds=10)["step"] * STEPS
    model.eval()
    with torch.no_grad():
        batch = alternate({"batch": lambda: seconds_of(lambda: model(images))}, rounds=1)["batch"]
    number = len(list((root / "test").rglob("*.png")))
    return {"training": training, "calibration and test": batch * number / BATCH_SIZE}


def _reference_step(model: ReferenceModel, images: torch.Tensor) -> Callable[[], None]:
    """Return a training step that paints its images first, one after the other."""
    pixels = [np.asarray((image.mean(0) * 255).byte().cpu()) for image in images]
    painter, train = Reference(pixels), training_step(model, images)

    def step() -> None:
        for index, image in enumerate(pixels):
            painter.paint(TASKS[index % len(TASKS)], image)
        train()

    return step


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets/sample"), help="folder as MedicalFolder takes it")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of ours that are really trained")
    parser.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "gpu"))
    arguments = parser.parse_args()
    ours = our_run(arguments.root, arguments.accelerator, arguments.epochs)
    on_gpu = arguments.accelerator != "cpu" and torch.cuda.is_available()
    reference = {"start": ours["start"]} | reference_run(arguments.root, "cuda" if on_gpu else "cpu")
    print(f"\n{arguments.epochs} of {EPOCHS} epochs trained, {describe_machine()}\n")
    print("| part | reference, seconds | ours, seconds | faster |\n| --- | ---: | ---: | ---: |")
    parts = [(part, reference[part], ours[part]) for part in ours]
    for part, theirs, own in [*parts, ("whole run", sum(reference.values()), sum(ours.values()))]:
        print(f"| {part} | {theirs:.1f} | {own:.1f} | {theirs / own:.1f} |")


if __name__ == "__main__":
    main()
