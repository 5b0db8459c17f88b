# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What the review page costs: bytes and time of the files of an image, and frames of a page of 10,000 images.

    python performance/review_page.py --images Dataset_BUSI_with_GT/benign

The picture with three panels, which predictions write too, stands beside the files of the page. Maps are of 28 x 28
random patches. Frames are those of Chromium, without a graphics card if there is none.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from anomalib.data import ImageItem
from playwright.sync_api import Page, sync_playwright
from reference import describe_machine
from torch.nn.functional import interpolate

from anomalib_mediclip.io import find_images
from anomalib_mediclip.prediction.pictures import draw_prediction
from anomalib_mediclip.prediction.review_page import write_page
from anomalib_mediclip.prediction.review_pictures import write_layers

FRAMES = """(move) => new Promise((done) => {
  const act = new Function("number", move), times = [];
  let last = performance.now();
  const frame = (now) => {
    times.push(now - last);
    last = now;
    act(times.length);
    if (times.length < 150) requestAnimationFrame(frame); else done(times.slice(5));
  };
  requestAnimationFrame(frame);
})"""
MOVES = {
    "scrolling, 40 pixels a frame": "scrollBy(0, 40)",
    "scrolling, 400 pixels a frame": "scrollBy(0, 400)",
    "moving the threshold": "const s = document.getElementById('slider'); s.value = number / 150; "
    "s.dispatchEvent(new Event('input'))",
}


def predicted(path: Path, generator: torch.Generator) -> ImageItem:
    """Return an image with a random map and a mask of its highest values."""
    patches = torch.rand(1, 1, 28, 28, generator=generator)
    anomaly_map = interpolate(patches, size=(224, 224), mode="bilinear")[0, 0]
    label, score = torch.tensor(True), torch.tensor(0.5)
    mask = anomaly_map > 0.75
    image = torch.zeros(3, 224, 224)
    return ImageItem(
        image=image, image_path=str(path), anomaly_map=anomaly_map, pred_mask=mask, pred_score=score, pred_label=label
    )


def cost_of(write: Callable[[ImageItem, Path], object], items: list[ImageItem], folder: Path) -> tuple[float, float]:
    """Return the milliseconds of the processor and the kilobytes that an image takes."""
    folder.mkdir(parents=True)
    begun = time.process_time()
    for index, item in enumerate(items):
        write(item, folder / f"{index:06d}")
    seconds = time.process_time() - begun
    return 1000 * seconds / len(items), sum(path.stat().st_size for path in folder.iterdir()) / 1000 / len(items)


def write_large_page(folder: Path, pictures: int, count: int = 10_000) -> Path:
    """Write a page of many images, which share the pictures."""
    (folder / "predictions.csv").write_text("file\n")
    scores = np.random.default_rng(0).random(count)
    rows = (
        [f"{i:05d}.png", f"{s:.9g}", "", "", f"review/0/{i % pictures:06d}", 1, 1, [], ""] for i, s in enumerate(scores)
    )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_page(folder / "index.html", "Many", 0.5, folder / "predictions.csv", [folder / "rows.jsonl"])
    return folder / "index.html"


def print_frames(page: Page, file: Path) -> None:
    """Open a page, and print the durations of its frames."""
    begun = time.perf_counter()
    page.goto(file.as_uri())
    page.wait_for_selector(".card")
    print(f"\n{file.stat().st_size / 1e6:.1f} MB, opened in {time.perf_counter() - begun:.1f} s\n")
    print("| 10,000 images | frame, median, ms | 95th percentile, ms |\n| --- | ---: | ---: |")
    for name, move in MOVES.items():
        median, most = np.percentile(page.evaluate(FRAMES, move), (50, 95))
        print(f"| {name} | {median:.0f} | {most:.0f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images, of which 40 are used")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    paths = find_images(arguments.images)
    items = [predicted(path, generator) for path in paths[:: max(1, len(paths) // 40)][:40]]
    print(f"\n{describe_machine()}\n\n| files of an image | ms, one core | kB |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        variants: dict[str, Callable[[ImageItem, Path], object]] = {
            "of the page": write_layers,
            "picture with three panels": lambda item, stem: draw_prediction(item).save(f"{stem}.png", compress_level=1),
        }
        for place, (variant, write) in enumerate(variants.items()):
            milliseconds, kilobytes = cost_of(write, items, folder / "review" / str(place))
            print(f"| {variant} | {milliseconds:.0f} | {kilobytes:.0f} |")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        print_frames(browser.new_page(viewport={"width": 1280, "height": 860}), write_large_page(folder, len(items)))
        browser.close()


if __name__ == "__main__":
    main()
