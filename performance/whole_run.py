# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Duration of a whole run with ViT-L/14, from the start of the process to metrics: 16 shots, 200 epochs, test.

    python performance/whole_run.py                # quarter of an hour on two CPU cores
    python performance/whole_run.py --epochs 50    # a quarter of the steps, multiplied by four

Ours is what ``anomalib train`` does with the paper's configuration in float32, weights apart, which are random and take
as long as CLIP's. Of the reference ten steps are timed, synthesis included, in between ours: before the run, when the
views are encoded, during the epochs and at the end. One batch of the test is timed too; the rest is multiplied. The
start of the reference is taken to be ours; it is not calibrated.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import statistics  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from anomalib.engine import Engine  # noqa: E402
from lightning import Callback  # noqa: E402
from reference import LARGE, ReferenceModel, describe_machine, seconds_of  # noqa: E402
from synthesis import TASKS, Reference, read_images  # noqa: E402
from training_step import training_step  # noqa: E402

from anomalib_mediclip import MedicalFolder, MediCLIP  # noqa: E402

SHOTS, EPOCHS, BATCH_SIZE = 16, 200, 8
STEPS = EPOCHS * SHOTS // BATCH_SIZE


class Timer(Callback):
    """Adds up the seconds of a run's parts, and stops while something else is timed.

    Its name says that it reads no metric: else every epoch would be validated.
    """

    def __init__(self, epochs: int, something_else: Callable[[], None]) -> None:
        self.seconds = dict.fromkeys(("start", "painting and encoding", "training", "calibration", "test"), 0.0)
        self._part, self._since = "start", START
        self._every, self._something_else = max(1, epochs // 5), something_else

    def enter(self, part: str) -> None:
        """Begin a part, and end the one before."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    def interrupt(self) -> None:
        """Time something else."""
        self.enter(self._part)
        with torch.inference_mode(False), torch.enable_grad():
            self._something_else()
        self._since = time.perf_counter()

    def on_train_start(self, trainer: object, pl_module: object) -> None:
        """Begin with the views: the model's own hook of this name comes after this one."""
        del trainer, pl_module
        self.interrupt()
        self.enter("painting and encoding")

    def on_train_epoch_start(self, trainer: Any, pl_module: object) -> None:
        """Begin the training."""
        del pl_module
        self.enter("training")
        if trainer.current_epoch % self._every == 0:
            self.interrupt()

    def on_validation_start(self, trainer: object, pl_module: object) -> None:
        """Begin the calibration, with which the training ends."""
        del trainer, pl_module
        self.enter("calibration")
        self.interrupt()

    def on_test_start(self, trainer: object, pl_module: object) -> None:
        """Begin the test."""
        del trainer, pl_module
        self.enter("test")


def our_run(arguments: argparse.Namespace, something_else: Callable[[], None]) -> dict[str, float]:
    """Train and test as the command does, and return the seconds of the parts of a run of 200 epochs."""
    timer = Timer(arguments.epochs, something_else)
    engine = Engine(
        accelerator=arguments.accelerator,
        devices=1,
        max_epochs=arguments.epochs,
        default_root_dir="results/performance/whole_run",
        callbacks=[timer],
    )
    options = {} if arguments.views is None else {"views": arguments.views}
    model = MediCLIP(weights=None, encoder_precision=arguments.precision, visualizer=False, **options)
    engine.train(model, datamodule=MedicalFolder(arguments.root, k_shot=SHOTS))
    timer.enter("end")
    views = model.hparams["views"]
    encoding = timer.seconds["painting and encoding"] * views / min(views, arguments.epochs)
    training = timer.seconds["training"] * EPOCHS / arguments.epochs
    return timer.seconds | {"painting and encoding": encoding, "training": training}


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
    """Time both in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets/sample"), help="folder as MedicalFolder takes it")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of ours that are really trained")
    parser.add_argument("--views", type=int, help="painted views of each image; the model's default unless given")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"), help="of our encoder")
    parser.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "gpu"))
    arguments = parser.parse_args()
    on_gpu = arguments.accelerator != "cpu" and torch.cuda.is_available()
    images = read_images(arguments.root / "train" / "normal", BATCH_SIZE).to("cuda" if on_gpu else "cpu")
    model = ReferenceModel(**LARGE).to(images.device)
    step, steps = _reference_step(model, images), []
    step()  # the first is slower
    ours = our_run(arguments, lambda: steps.append(seconds_of(step)))
    model.eval()
    with torch.no_grad():
        batch = seconds_of(lambda: model(images))
    number = len(list((arguments.root / "test").rglob("*.png")))
    reference = dict.fromkeys(ours, 0.0) | {
        "start": ours["start"],
        "training": statistics.median(steps) * STEPS,
        "test": batch * number / BATCH_SIZE,
    }
    print(
        f"\n{arguments.epochs} of {EPOCHS} epochs trained, {len(steps)} steps of the reference, {describe_machine()}\n"
    )
    print("| part | reference, seconds | ours, seconds | faster |\n| --- | ---: | ---: | ---: |")
    for part, own in ours.items():
        faster = f"{reference[part] / own:.1f}" if reference[part] else ""
        print(f"| {part} | {reference[part]:.1f} | {own:.1f} | {faster} |")
    fitted = sum(ours.values()) - ours["test"]
    print(
        f"| all but the test, against the training | {reference['training']:.1f} | {fitted:.1f} | "
        f"{reference['training'] / fitted:.1f} |"
    )
    total = sum(reference.values()), sum(ours.values())
    print(f"| whole run | {total[0]:.1f} | {total[1]:.1f} | {total[0] / total[1]:.1f} |")


if __name__ == "__main__":
    main()
