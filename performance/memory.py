# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Memory and disk space of ViT-L/14 in inference and in training, and of the lite preset in training.

    python performance/memory.py --threads 2

Every figure is the peak resident memory of a process of its own, Python and the construction of the model included.
Training is that of 16 images with as many epochs as there are views, and its validation; inference is the prediction of
a folder. Without ``--weights`` the
encoder has random weights; with a file of weights the pages of that file are part of the peak.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

TASKS = ("inference", "training", "lite training")
PRECISIONS = ("float32", "bfloat16")
LITE = Path("configs/model/mediclip_lite.yaml")


def run(task: str, precision: Any, arguments: argparse.Namespace) -> None:
    """Do one task and print, in bytes, the peak of this process, the learnt weights and the checkpoint."""
    import torch
    import yaml
    from anomalib.engine import Engine

    from anomalib_mediclip import MedicalFolder, MediCLIP

    torch.set_num_threads(arguments.threads)
    options = {"weights": arguments.weights}
    if task == "lite training":
        options = yaml.safe_load(LITE.read_text(encoding="utf-8"))["model"]["init_args"]
    options |= {"encoder_precision": precision, "views": arguments.views, "visualizer": False}
    model = MediCLIP(**options)
    folder = Path("results/performance/memory") / task  # anomalib cannot train where it has only predicted
    engine = Engine(default_root_dir=folder, accelerator="cpu", max_epochs=arguments.views, logger=False)
    if task != "inference":
        engine.fit(model, datamodule=MedicalFolder(arguments.root, k_shot=16))
        engine.trainer.save_checkpoint(folder / "model.ckpt")
    else:
        datamodule = MedicalFolder(arguments.root, k_shot=16, eval_batch_size=arguments.batch_size)
        engine.predict(model, datamodule=datamodule)
    peak = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[0]) * 1024
    learnt = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    size = (folder / "model.ckpt").stat().st_size if task != "inference" else 0
    print(f"RESULT {peak} {learnt} {size}")


def main() -> None:
    """Start the processes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="datasets/sample", help="folder of images, as MedicalFolder takes it")
    parser.add_argument("--weights", help="file with weights of ViT-L/14")
    parser.add_argument("--batch_size", type=int, default=8, help="batch size of inference")
    parser.add_argument("--views", type=int, default=50, help="painted views of each image, and epochs")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs=2, metavar=("TASK", "PRECISION"), help="do one task in this process")
    arguments = parser.parse_args()
    if arguments.only:
        run(*arguments.only, arguments)
        return
    print("| task | encoder | peak memory, GB | learnt weights, MB | checkpoint with optimiser, MB |")
    print("| --- | --- | ---: | ---: | ---: |")
    for task in TASKS:
        for precision in arguments.precisions:
            command = [sys.executable, *sys.argv, "--only", task, precision]
            process = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
            if process.returncode:
                sys.exit(f"{task} in {precision} failed:\n{process.stderr[-2000:]}")
            lines = process.stdout.splitlines()
            peak, learnt, size = next(line.split()[1:] for line in lines if line.startswith("RESULT"))
            checkpoint = f"{int(size) / 1e6:.1f}" if int(size) else "-"
            print(
                f"| {task} | {precision} | {int(peak) / 1e9:.2f} | {int(learnt) / 1e6:.1f} | {checkpoint} |", flush=True
            )


if __name__ == "__main__":
    main()
