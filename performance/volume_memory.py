# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Memory and time of the prediction of a volume, as DICOM series, multi-frame DICOM and NIfTI, by the lite preset.

    python performance/volume_memory.py --slices 500 --size 512

The volumes are made for this, of noise. Every figure is the peak of a prediction with pictures in a process of its own:
the memory of this process and of its workers together, where shared pages count once (proportional set size), and what
of it was there before the volume was opened.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

FORMATS = ("series", "frames.dcm", "volume.nii", "volume.nii.gz")


def make(path: Path, slices: int, size: int) -> None:
    """Write a volume of 16-bit noise."""
    from tests.helpers.volumes import make_dicom, make_nifti, make_series

    random = np.random.default_rng(0)
    volume = np.stack([random.integers(0, 1500, (size, size), np.int16) for _ in range(slices)])
    if path.name == "series":
        make_series(path, volume, (1, 0, 0), (0, 1, 0))
    elif path.suffix == ".dcm":
        make_dicom(path, volume)
    else:
        make_nifti(path, volume.transpose(2, 1, 0))


def memory() -> int:
    """Return the memory of this process and its children in bytes."""
    own = str(os.getpid())
    listed = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="utf-8").split()
    total = 0
    for process in (own, *listed):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
        except OSError:  # it has ended
            continue
        total += int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0]) * 1024
    return total


def run(path: Path, threads: int) -> None:
    """Predict a volume, and print peak, memory before and seconds."""
    import torch
    from anomalib.engine import Engine

    from tests.helpers.lite import lite_model

    torch.set_num_threads(threads)
    model = lite_model()
    model.prediction_path = path  # as the command sets it
    engine = Engine(default_root_dir=path.parent / "results", accelerator="cpu", logger=False)
    before, peak, ended = memory(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            peak[0] = max(peak[0], memory())

    threading.Thread(target=watch, daemon=True).start()
    start = time.perf_counter()
    engine.predict(model, return_predictions=False)
    seconds = time.perf_counter() - start
    ended.set()
    print(f"RESULT {peak[0]} {before} {seconds}")


def main() -> None:
    """Make the volumes, start the processes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--only", type=Path, metavar="PATH", help="predict one volume in this process")
    arguments = parser.parse_args()
    if arguments.only:
        run(arguments.only, arguments.threads)
        return
    print("| format | peak memory, GB | of it before the volume, GB | seconds |")
    print("| --- | ---: | ---: | ---: |")
    for name in arguments.formats:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            make(path, arguments.slices, arguments.size)
            command = [sys.executable, *sys.argv, "--only", str(path)]
            process = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
            if process.returncode:
                sys.exit(f"{name} failed:\n{process.stderr[-2000:]}")
            peak, before, seconds = map(float, process.stdout.split("RESULT")[1].split())
            print(f"| {name} | {peak / 1e9:.2f} | {before / 1e9:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
