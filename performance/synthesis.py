# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Duration of painting an anomaly on an image, against the way of the official code.

    python performance/synthesis.py --folder datasets/sample/train/normal

Ours is the paper's synthesis: one anomaly an image, CutPaste blended by Poisson image editing. The reference does what
the method description says of the official code: one or two anomalies an image, array by array in NumPy and SciPy,
CutPaste without blending but with the label of changed pixels. Both run in turn on one thread, image by image, on the
images as they are (three equal channels for ours, luminance for the reference, which knows no colour) and, ours only,
tinted, so that the channels differ.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.ndimage import (
    affine_transform,
    gaussian_filter,
    grey_closing,
    grey_erosion,
    label,
    map_coordinates,
    rotate,
)
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.io import find_images, read_image
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

SIDE = 224
TASKS = ("cut_paste", "gauss_intensity", "source")
TINT = torch.tensor([1.0, 0.9, 0.8]).view(3, 1, 1)

Painter = Callable[[np.ndarray, np.ndarray, tuple[slice, slice]], np.ndarray]


class Reference:
    """The official code's synthesis as its description tells it, on 8-bit luminance ``(H, W)``.

    Args:
        support (list[np.ndarray]): Images that CutPaste cuts from.
        seed (int): Seed of all draws.
    """

    def __init__(self, support: list[np.ndarray], seed: int = 0) -> None:
        self.support = support
        self.rng = np.random.default_rng(seed)

    def paint(self, task: str, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return an image with one or two anomalies and its label."""
        painter: Painter = {"cut_paste": self.cut_paste, "gauss_intensity": self.gauss, "source": self.deform}[task]
        changed, region = image.astype(np.float64), np.zeros(image.shape, bool)
        for _ in range(self.rng.integers(1, 3)):
            mask = self.shape_mask() if task == "source" else self.perlin_mask(task)
            corner = [int(self.rng.integers(SIDE - side + 1)) for side in mask.shape]
            window = (slice(corner[0], corner[0] + mask.shape[0]), slice(corner[1], corner[1] + mask.shape[1]))
            changed = painter(changed, mask, window)
            region[window] |= mask
        changed = changed.clip(0, 255).astype(np.uint8)
        return changed, self.changed_label(image, changed, region) if task == "cut_paste" else region.astype(np.float64)

    def perlin_mask(self, task: str) -> np.ndarray:
        """Threshold one cell of Perlin noise, rotated, until it covers a fifth of its patch."""
        low, high = (22, 134) if task == "cut_paste" else (67, 179)
        height, width = self.rng.integers(low, high, size=2)
        rows, columns = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
        while True:
            angles = self.rng.uniform(0, 2 * np.pi, (2, 2))
            n = [
                [np.cos(angles[a, b]) * (rows - a) + np.sin(angles[a, b]) * (columns - b) for b in (0, 1)]
                for a in (0, 1)
            ]
            down, across = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (rows, columns))
            left, right = (n[0][b] * (1 - down) + n[1][b] * down for b in (0, 1))
            noise = np.sqrt(2) * (left * (1 - across) + right * across)
            mask = rotate(noise, self.rng.uniform(-90, 90), reshape=False, order=1) > 0.3
            if mask.mean() >= 0.2:
                return mask

    def shape_mask(self) -> np.ndarray:
        """Draw a sheared and rotated rectangle or ellipse; its inverse transform and size stay for the deformation."""
        self.size = ((0.03 + self.rng.gamma(2, 0.1, 2)) * SIDE).clip(45, 134).astype(int)
        self.ellipse = self.rng.random() < 0.5
        angle = self.rng.uniform(-np.pi / 2, np.pi / 2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shear = self.rng.normal(0, 0.2, 2)
        transform = turn @ np.array([[1, shear[0]], [shear[1], 1]])
        sides = np.abs(transform) @ (self.size - 1)
        transform /= max(1, (sides / 134).max())
        box = np.ceil(np.abs(transform) @ (self.size - 1) / 2).astype(int)
        self.inverse = np.linalg.inv(transform)
        self.pixels = np.indices(2 * box + 1).astype(np.float64) - box[:, None, None]
        q = np.tensordot(self.inverse, self.pixels, 1) / (self.size / 2)[:, None, None]
        return (q**2).sum(0) <= 1 if self.ellipse else np.abs(q).max(0) <= 1

    def gauss(self, image: np.ndarray, mask: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        """Add smooth noise, stretched to [0, 1], under a feathered mask."""
        noise = gaussian_filter((self.rng.standard_normal((SIDE, SIDE)) >= 0).astype(float), self.rng.choice([4, 7]))
        noise = (noise - noise.min()) / np.ptp(noise)
        change = (self.rng.choice([-1, 1]) * self.rng.uniform(0.4, 0.6) * noise).clip(-1, 1)
        weights = gaussian_filter(mask.astype(float), self.rng.uniform(1, 4), mode="reflect") * mask
        result = image / 255
        result[window] += change[window] * weights
        return result.clip(0, 1) * 255

    def cut_paste(self, image: np.ndarray, mask: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        """Replace the mask by a rotated, scaled cut of a support image."""
        source = self.support[self.rng.integers(len(self.support))].astype(np.float64)
        angle, stretch = self.rng.uniform(-np.pi / 4, np.pi / 4), 1 + self.rng.exponential(0.1)
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix *= stretch if self.rng.random() < 0.5 else 1 / stretch
        reach = np.abs(matrix) @ mask.shape
        matrix, reach = (part * min(1, (0.8 * SIDE / reach).min()) for part in (matrix, reach))
        offset = self.rng.random(2) * (SIDE - reach) - np.minimum(matrix * mask.shape, 0).sum(1)
        patch = affine_transform(source, matrix, offset, mask.shape, order=3).clip(source.min(), source.max())
        result = image.copy()
        result[window] = np.where(mask, patch, result[window])
        return result

    def changed_label(self, before: np.ndarray, after: np.ndarray, region: np.ndarray) -> np.ndarray:
        """Label what changed, closed and filled within each part of the region."""
        level = np.abs(after - before) * region.astype(np.float64)  # unsigned: it wraps around, as officially
        soft = 1 - np.exp(-(level**2) / (2 * 0.2**2))
        parts, number = label(region)
        for part in range(1, number + 1):
            where = np.argwhere(parts == part)
            box = tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
            soft[box] = _fill(grey_closing(soft[box], (3, 3)))
        return soft

    def deform(self, image: np.ndarray, mask: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        """Push the pixels of the mask away from a centre, with cubic splines on the patch."""
        pixels = np.indices(mask.shape).astype(np.float64)
        centre = np.argwhere(mask)[self.rng.integers(mask.sum())].astype(np.float64)
        strength = 2 ** self.rng.uniform(0.5, 2)
        offset = pixels - centre[:, None, None]
        a = self.inverse @ (centre - (np.array(mask.shape) - 1) / 2) / (self.size / 2)
        b = np.tensordot(self.inverse, offset, 1) / (self.size / 2)[:, None, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.ellipse:
                ab, bb = np.tensordot(a, b, 1), (b**2).sum(0)
                position = bb / (np.sqrt(ab**2 + (1 - a @ a) * bb) - ab)
            else:
                position = np.maximum(b / (1 - a)[:, None, None], -b / (1 + a)[:, None, None]).max(0)
        moved = centre[:, None, None] + offset * np.nan_to_num(position) ** (strength - 1)
        inner = np.zeros_like(mask)
        inner[1:-1, 1:-1] = mask[1:-1, 1:-1]
        result = image.copy()
        deformed = map_coordinates(image[window], np.where(inner, moved, pixels), order=3, mode="nearest")
        result[window] = np.where(mask, deformed, image[window])
        return result


def _fill(soft: np.ndarray) -> np.ndarray:
    """Fill holes: greyscale reconstruction by erosion from the maximum inside."""
    filled = np.full_like(soft, soft.max())
    filled[[0, -1]], filled[:, [0, -1]] = soft[[0, -1]], soft[:, [0, -1]]
    while True:
        eroded = np.maximum(grey_erosion(filled, (3, 3)), soft)
        if np.array_equal(eroded, filled):
            return filled
        filled = eroded


def read_images(folder: Path, number: int) -> torch.Tensor:
    """Read the first images of a folder, masks left out, at 224 x 224 pixels."""
    paths = [path for path in find_images(folder) if "_mask" not in path.stem][:number]
    return torch.stack([resize(read_image(path), [SIDE, SIDE], antialias=True).clamp(0, 1) for path in paths])


def ours(task: str, images: torch.Tensor) -> Callable[[int], None]:
    """Return what paints one epoch on a batch of images."""
    generator = MedicalAnomalyGenerator(tasks={task: 1.0})
    generator.set_support_set(list(images))
    return lambda epoch: generator(images, epoch=epoch) and None


def reference(task: str, images: torch.Tensor) -> Callable[[int], None]:
    """Return what paints one epoch on images, one after the other."""
    pixels = [np.asarray((image.mean(0) * 255).byte()) for image in images]
    painter = Reference(pixels)
    return lambda _: [painter.paint(task, image) for image in pixels] and None


def main() -> None:
    """Time all tasks in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("datasets/sample/train/normal"))
    parser.add_argument("--number", type=int, default=16, help="images")
    parser.add_argument("--epochs", type=int, default=10, help="timed passes over the images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = read_images(arguments.folder, arguments.number)
    columns = {"reference": (reference, images), "ours": (ours, images), "ours, colour": (ours, images * TINT)}
    print(f"| task | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    rows = []
    for task in TASKS:
        runs = [make(task, batch) for make, batch in columns.values()]
        seconds = np.zeros(len(runs))
        for epoch in range(arguments.epochs + 1):
            for column, run in enumerate(runs):
                start = time.perf_counter()
                run(epoch)
                seconds[column] += (time.perf_counter() - start) * (epoch > 0)  # the first pass warms up
        rows.append(1000 * seconds / arguments.epochs / len(images))
        print(f"| {task} | {' | '.join(f'{value:.2f}' for value in rows[-1])} |")
    print(f"| mean | {' | '.join(f'{value:.2f}' for value in np.mean(rows, axis=0))} |")


if __name__ == "__main__":
    main()
