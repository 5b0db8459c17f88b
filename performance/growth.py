# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Growth of memory and time: with the number of images, their size, and k.

    python performance/growth.py
    python performance/growth.py --questions metric --numbers 500 2000 8000

Questions: metric (pixel AUROC of synthetic maps of 224 x 224, against keeping every pixel), test and predict (a folder
of that many images, lite encoder; predict against anomalib's own way), size (one forward pass of eight images of that
size), k_shot (one training epoch on that many images). Every row is a process of its own; memory is its peak, Python
and libraries included, and seconds are those of the question alone. Encoders have random weights. Worker processes,
which read images, are not counted.
"""

import argparse
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SAMPLE = Path("datasets/sample")
LITE = {"encoder": "timm/tf_efficientnet_lite0.in1k", "layers": [3, 4, 5]}
VIT = {"encoder": "ViT-S-16-alt", "layers": [6, 9, 12]}

Measured = dict[str, str]


def metric(number: int, variant: str) -> Measured:
    """Feed the pixel AUROC with maps as a trained model gives them, normal images first."""
    import torch

    from anomalib_mediclip.evaluation import auroc

    if variant == "every pixel kept":
        auroc.EXACT_LIMIT = sys.maxsize
    metric, generator = auroc._ExactAUROC(), torch.Generator().manual_seed(0)
    start = time.perf_counter()
    for index in range(0, number, 20):
        masks = torch.zeros(20, 224, 224, dtype=torch.bool)
        masks[:, 80:140, 80:140] = index >= number / 2
        metric.update((torch.randn(20, 224, 224, generator=generator) + 1.5 * masks - 3).sigmoid(), masks)
    return {"AUROC": f"{metric.compute().item():.7f}", "seconds": f"{time.perf_counter() - start:.1f}"}


def test(number: int, variant: str) -> Measured:
    """Test on copies of the sample's images."""
    del variant
    from anomalib_mediclip import MedicalFolder

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        _copies(SAMPLE / "train" / "normal", root / "train" / "normal", 16)
        _copies(SAMPLE / "test" / "normal", root / "test" / "normal", number // 2)
        _copies(SAMPLE / "test" / "abnormal", root / "test" / "abnormal", number // 2)
        _copies(SAMPLE / "masks" / "abnormal", root / "masks" / "abnormal", number // 2)
        engine, model = _engine(folder), _model()
        start = time.perf_counter()
        engine.test(model, datamodule=MedicalFolder(root, k_shot=16), verbose=False)
        return _rate(number, start)


def predict(number: int, variant: str) -> Measured:
    """Predict copies of the sample's images, as the command does or as anomalib's engine would."""
    with tempfile.TemporaryDirectory() as folder:
        _copies(SAMPLE / "test" / "abnormal", Path(folder) / "images", number)
        engine, model = _engine(folder), _model()
        start = time.perf_counter()
        if variant == "anomalib":
            engine.predict(model, data_path=Path(folder) / "images")
        else:
            model.prediction_path = Path(folder) / "images"
            engine.predict(model, return_predictions=False)
        return _rate(number, start)


def size(number: int, variant: str) -> Measured:
    """Predict eight images of a size, five times after a first."""
    import torch

    model = _model(VIT if variant == "ViT-S/16" else LITE, image_size=(number, number)).eval()
    images = torch.rand(8, 3, number, number)
    with torch.no_grad():
        model(images)
        start = time.perf_counter()
        for _ in range(5):
            model(images)
    return {"seconds an image": f"{(time.perf_counter() - start) / 40:.3f}"}


def k_shot(number: int, variant: str) -> Measured:
    """Train five epochs after a first, in which the support set is read."""
    del variant
    from lightning import Callback

    from anomalib_mediclip import MedicalFolder

    class Clock(Callback):
        def on_train_epoch_start(self, trainer: object, pl_module: object) -> None:
            del trainer, pl_module
            starts.append(time.perf_counter())

    starts: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        _copies(SAMPLE / "train" / "normal", root / "train" / "normal", number)
        _copies(SAMPLE / "test" / "normal", root / "test" / "normal", 1)
        _copies(SAMPLE / "test" / "abnormal", root / "test" / "abnormal", 1)
        engine = _engine(folder, max_epochs=7, limit_val_batches=0, callbacks=[Clock()])
        engine.fit(_model(), datamodule=MedicalFolder(root, k_shot=number))
    return {"seconds an epoch": f"{(starts[6] - starts[1]) / 5:.2f}"}


QUESTIONS: dict[str, tuple[Callable[[int, str], Measured], str, tuple[int, ...], tuple[str, ...]]] = {
    "metric": (metric, "test images", (500, 2000, 8000), ("every pixel kept", "as shipped")),
    "test": (test, "test images", (500, 2000, 4000), ("as shipped",)),
    "predict": (predict, "images", (500, 2000, 4000), ("anomalib", "as shipped")),
    "size": (size, "image size", (224, 336, 448), ("lite", "ViT-S/16")),
    "k_shot": (k_shot, "k", (4, 8, 16, 32), ("lite",)),
}


def _copies(source: Path, target: Path, number: int) -> None:
    """Fill a folder with links to the images of another."""
    target.mkdir(parents=True)
    images = sorted(source.glob("*.png"))
    for index in range(number):
        (target / f"{index}.png").symlink_to(images[index % len(images)].resolve())


def _model(encoder: dict = LITE, image_size: tuple[int, int] = (224, 224)):  # noqa: ANN202  # loads slowly
    """Return a random model."""
    from anomalib_mediclip import MediCLIP

    return MediCLIP(**encoder, weights=None, prompt="prototype", image_size=image_size, visualizer=False)


def _engine(folder: str, **options: object):  # noqa: ANN202
    """Return an engine on the CPU."""
    from anomalib.engine import Engine

    return Engine(accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False, **options)


def _rate(number: int, start: float) -> Measured:
    """Return the time since a start."""
    seconds = time.perf_counter() - start
    return {"seconds": f"{seconds:.1f}", "images a second": f"{number / seconds:.1f}"}


def _in_own_process(question: str, number: int, variant: str) -> Measured:
    """Answer one question and return the peak of memory beside."""
    command = [sys.executable, *sys.argv, "--only", question, str(number), variant]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{question} {number} {variant} failed:\n{result.stderr[-2000:]}")
    return dict(field.split("=") for field in lines[0].removeprefix("RESULT ").split(";"))


def _answer(question: str, number: int, variant: str, threads: int) -> None:
    """Answer one question in this process and print the result for the process that started it."""
    import torch

    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    measured = QUESTIONS[question][0](number, variant)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print("RESULT " + ";".join(f"{name}={value}" for name, value in [*measured.items(), ("peak GB", f"{peak:.2f}")]))


def main() -> None:
    """Print a table for every question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    parser.add_argument("--numbers", nargs="+", type=int, help="other numbers of images, sizes or k than the usual")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs=3, metavar=("QUESTION", "NUMBER", "VARIANT"), help="one row, in this process")
    arguments = parser.parse_args()
    if arguments.only:
        question, number, variant = arguments.only
        _answer(question, int(number), variant, arguments.threads)
        return
    for question in arguments.questions:
        _, unit, numbers, variants = QUESTIONS[question]
        for index, (number, variant) in enumerate((n, v) for n in arguments.numbers or numbers for v in variants):
            row = {unit: str(number), "variant": variant} | _in_own_process(question, number, variant)
            if index == 0:
                print(f"\n{question}\n\n| {' | '.join(row)} |\n| ---: | --- |{' ---: |' * (len(row) - 2)}")
            print(f"| {' | '.join(row.values())} |", flush=True)


if __name__ == "__main__":
    main()
