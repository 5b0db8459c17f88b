# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Prediction of archives: what the number of files costs before and after the model, and images a second.

    python performance/archive.py growth --numbers 1000 10000 100000
    python performance/archive.py throughput --model model.xml --images Dataset_BUSI_with_GT --repeat 3

growth: CPU seconds and peak memory to list that many (empty) files, and to find that all their shards are finished; the
rows of the shards are written by this script. throughput: a plain loop of reading and predicting, one process with
readers and requests beside each other, one worker of Ray and two, each on one core a process, in turn. Loading is not
counted: the rate is that of all shards after the first of each worker.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = 1000  # files in a folder
SHARD = 16  # images in a shard of the throughput


def growth(numbers: list[int]) -> None:
    """Print the table of growth; every row is measured in two processes of its own."""
    print("| files | list, CPU seconds | peak MB | resume, CPU seconds | peak MB |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for index in range(number):
                target = root / "in" / f"{index // FOLDER:05d}"
                target.mkdir(parents=True, exist_ok=True)
                (target / f"{index:07d}.png").touch()
            (root / "model.xml").write_text("never opened")
            cells = [_measured(step, root) for step in ("plan", "resume")]
        print(f"| {number:,} | {' | '.join(cells)} |", flush=True)


def _measured(step: str, root: Path) -> str:
    """Run a step in a process of its own."""
    command = [sys.executable, __file__, "step", "--step", step, "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # this script
    return done.stdout.strip().splitlines()[-1]


def run_step(step: str, root: Path) -> None:
    """List the files, or find that everything is finished; print seconds and peak memory."""
    from anomalib_mediclip.archive import Workers, predict_archive, prediction
    from anomalib_mediclip.archive.manifest import read_rows

    output = root / "out"
    output.mkdir(exist_ok=True)
    start = time.process_time()
    if step == "plan":
        plan = prediction._plan(root / "model.xml", root / "in", output, None)
    else:
        summary = predict_archive(root / "model.xml", root / "in", output, Workers(cpus=1), top=0)
        assert summary.shards == 0
    seconds = time.process_time() - start
    print(f"{seconds:.2f} | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")
    if step == "plan":  # what predicting them would leave
        for shard in range(plan.shards):
            rows = read_rows(plan.manifest, *plan.rows_of(shard))
            plan.part(shard).write_text("".join(f"{row.path},0.503405213,normal,0.5,\n" for row in rows))


def throughput(model: Path, images: Path, repeat: int) -> None:
    """Print images a second of every way, in turn."""
    from anomalib_mediclip.archive import Workers

    ways = {
        "one process": Workers(cpus=1),
        "one worker of Ray": Workers("ray", 1, 1),
        "two workers of Ray": Workers("ray", 2, 1),
    }
    print("| round | plain loop | " + " | ".join(ways) + " |")
    print("| ---: |" + " ---: |" * (len(ways) + 1))
    for number in range(repeat):
        rates = [_plain(model, images), *(_rate(model, images, workers) for workers in ways.values())]
        print(f"| {number + 1} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |", flush=True)


def _plain(model: Path, images: Path) -> float:
    """Return images a second of a loop that reads and predicts one image after the other on one core."""
    from anomalib_mediclip.export import ExportedModel
    from anomalib_mediclip.io import read_image, stream_image_files

    exported = ExportedModel(model, threads=1)
    paths = list(stream_image_files(images))
    exported(read_image(paths[0]).numpy()[None])
    start = time.perf_counter()
    for path in paths:
        exported(read_image(path).numpy()[None])
    return len(paths) / (time.perf_counter() - start)


def _rate(model: Path, images: Path, workers: object) -> float:
    """Return images a second by the times at which shards were finished."""
    command = [str(Path(sys.executable).with_name("anomalib")), "mediclip", "predict_archive", str(model), str(images)]
    number = getattr(workers, "number", None) or 1
    options = ["--launcher", workers.launcher, "--cpus", "1", "--top", "0", "--shards", str(_shards(images))]
    options += ["--workers", str(number)] if workers.launcher == "ray" else []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*command, folder, *options], capture_output=True, check=True)  # noqa: S603
        ends = sorted((file.stat().st_mtime, file) for file in (Path(folder) / "parts").iterdir())
        rows = sum(len(file.read_text().splitlines()) for _, file in ends[number:])
        return rows / (ends[-1][0] - ends[number - 1][0])


def _shards(images: Path) -> int:
    """Return the number of shards."""
    from anomalib_mediclip.io import stream_image_files

    return max(2, sum(1 for _ in stream_image_files(images)) // SHARD)


def main() -> None:
    """Run the question that is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=("growth", "throughput", "step"))
    parser.add_argument("--numbers", type=int, nargs="+", default=[1000, 10000, 100000])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.question == "growth":
        growth(given.numbers)
    elif given.question == "throughput":
        os.environ["OMP_NUM_THREADS"] = "1"
        throughput(given.model, given.images, given.repeat)
    else:
        run_step(given.step, given.root)


if __name__ == "__main__":
    main()
