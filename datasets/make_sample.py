# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Make the sample data set: template brain slices, and the same with simulated lesions.

Needs numpy, scipy, pillow and nilearn (``pip install numpy scipy pillow nilearn``), and nothing from the network: the
T1-weighted MNI152 template is a file inside the nilearn package.

Every image is a new cut through the template: a slice plane with its own level, tilt, rotation, shift and scale, bent
by a smooth random warp, then exposed with its own contrast, bias field, blur and noise. An abnormal image is made by
the same steps; the only difference is a lesion put in between the cut and the exposure, so that contrast, bias, blur
and noise run through the lesion too. The lesions are four kinds of drawing with soft, irregular outlines. They share
no code with the synthetic anomalies that the package trains on and are made in another way.

All lengths are pixels, about a millimetre each. Signal has the template's units: 0 is background, cerebrospinal fluid
is about 0.25, grey matter 0.6 and white matter 0.85.

    python datasets/make_sample.py --output datasets/sample
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

try:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from scipy import ndimage
except ImportError as error:
    msg = f"make_sample.py needs {error.name}; install it with: pip install numpy scipy pillow nilearn"
    raise ImportError(msg) from error

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SHAPE = (192, 160)
"""Rows and columns of an image; the front of the head is at the top."""

LEVELS = (4.0, 11.0, 18.0, 25.0)
"""Heights of the slices above the anterior commissure, in millimetres."""

TRAIN_COUNT = 16
TEST_COUNT = 20


@dataclass(frozen=True)
class Lesion:
    """One lesion as drawn on a slice.

    Attributes:
        signal (Array): What the lesion looks like, ``(H, W)``, in template units.
        opacity (Array): How much of it covers the tissue, ``(H, W)``, in [0, 1].
        extent (Mask): The ground truth, ``(H, W)``.
        push (Array): Displacement of the tissue around it (rows, columns), ``(2, H, W)``, in pixels.
    """

    signal: Array
    opacity: Array
    extent: Mask
    push: Array


@dataclass(frozen=True)
class Template:
    """The MNI152 T1 template.

    Attributes:
        coefficients (Array): Cubic spline coefficients of the volume, ``(X, Y, Z)``, 1 mm voxels.
        to_voxels (Array): Affine matrix from millimetres to voxels, ``(4, 4)``.
    """

    coefficients: Array
    to_voxels: Array

    @classmethod
    def load(cls) -> "Template":
        """Read the template that nilearn ships.

        Raises:
            ImportError: If nilearn is not installed.
        """
        try:
            from nilearn.datasets import load_mni152_template
        except ImportError as error:
            msg = f"the template is a file of nilearn, but {error.name} is not installed; cure: pip install nilearn"
            raise ImportError(msg) from error
        image = load_mni152_template(resolution=1)
        volume = np.asarray(image.dataobj, dtype=np.float64)
        return cls(ndimage.spline_filter(volume, order=3), np.linalg.inv(image.affine))

    def cut(self, plane: Array) -> Array:
        """Sample the template at positions in millimetres, ``(3, H, W)``; signal ``(H, W)``, not negative."""
        voxels = np.tensordot(self.to_voxels[:3, :3], plane, axes=1) + self.to_voxels[:3, 3, None, None]
        return ndimage.map_coordinates(self.coefficients, voxels, order=3, prefilter=False).clip(min=0)


def pixel_grid() -> Array:
    """Row and column of every pixel, ``(2, H, W)``."""
    return np.indices(SHAPE).astype(np.float64)


def smooth_field(rng: np.random.Generator, scale: float) -> Array:
    """Random field of mean 0 and standard deviation 1, ``(H, W)``, smoothed over ``scale`` pixels."""
    field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), scale, mode="reflect")
    return (field - field.mean()) / field.std()


def draw_plane(level: float, rng: np.random.Generator) -> Array:
    """Draw the bent slice plane of one image.

    The result holds each pixel's position in the template's space (right, front, up), ``(3, H, W)``, in millimetres.
    """
    rows, columns = pixel_grid()
    front, right = (SHAPE[0] - 1) / 2 - rows, columns - (SHAPE[1] - 1) / 2
    angle, pitch, roll = np.deg2rad(rng.uniform(-6, 6)), rng.uniform(-0.06, 0.06), rng.uniform(-0.03, 0.03)
    zoom_right, zoom_front = rng.uniform(0.93, 0.99) * rng.uniform(0.98, 1.02, size=2)
    x = (right * np.cos(angle) - front * np.sin(angle) + rng.uniform(-2, 2)) / zoom_right
    y = (right * np.sin(angle) + front * np.cos(angle) + rng.uniform(-2, 2)) / zoom_front - 17  # 17 mm: brain centre
    z = level + rng.uniform(-2.5, 2.5) + pitch * y + roll * x
    bend = [1.7 * smooth_field(rng, 18) + 0.7 * smooth_field(rng, 6) for _ in range(3)]
    return np.stack([x, y, z]) + np.stack(bend)


def brain_of(anatomy: Array) -> Mask:
    """Everything inside the brain's outline, ventricles included, ``(H, W)``."""
    return ndimage.binary_fill_holes(anatomy > 0.1)


def expose(anatomy: Array, rng: np.random.Generator) -> Array:
    """Turn a signal into a grey image with its own contrast, bias field, blur and noise.

    The grey values, ``(H, W)``, lie in [0, 255] and are 0 outside the brain, as after skull stripping.
    """
    gamma, gain, noise = rng.uniform(1.2, 1.8), rng.uniform(0.76, 0.98), rng.uniform(0.012, 0.026)
    bias = np.exp(rng.uniform(0.03, 0.08) * smooth_field(rng, 45))
    signal = gain * bias * ndimage.gaussian_filter(anatomy, rng.uniform(0.3, 0.7)) ** gamma
    # The magnitude of a complex signal: noise in an MR image is Rician.
    grey = np.hypot(signal + noise * rng.standard_normal(SHAPE), noise * rng.standard_normal(SHAPE))
    return 255 * grey.clip(0, 1) * brain_of(anatomy)


def draw_depth(centre: Array, radius: float, roughness: float, rng: np.random.Generator) -> Array:
    """Draw a circle distorted by the angular harmonics 2 to 6 and say how deep inside it each pixel is.

    Args:
        centre (Array): Row and column, ``(2,)``.
        radius (float): Mean radius in pixels.
        roughness (float): Relative amplitude of the harmonics; they fall off with their order.
        rng (np.random.Generator): Source of randomness.

    Returns:
        Array: Pixels to the outline along the radius, ``(H, W)``; positive inside.
    """
    rows, columns = pixel_grid() - centre[:, None, None]
    angle = np.arctan2(rows, columns)
    wobble = np.zeros(SHAPE)
    for order in range(2, 7):
        amplitude, phase = rng.normal(0, 2 * roughness / order), rng.uniform(0, 2 * np.pi)
        wobble += amplitude * np.cos(order * angle + phase)
    return radius * np.exp(wobble) - np.hypot(rows, columns)


def fade(depth: Array, softness: float) -> Array:
    """Soft edge: 0 outside, 1 inside, one half on the outline, ``(H, W)``."""
    return 1 / (1 + np.exp(-(depth / softness).clip(-30, 30)))


def mass_effect(centre: Array, depth: Array, strength: float) -> Array:
    """Displacement away from a lesion, fading with the distance from its outline, ``(2, H, W)``, in pixels."""
    offset = pixel_grid() - centre[:, None, None]
    direction = offset / np.hypot(*offset).clip(min=1)
    return strength * np.exp(depth.clip(max=0) / 9) * direction


def place(allowed: Mask, anatomy: Array, margin: float, rng: np.random.Generator) -> Array:
    """Pick a pixel of ``allowed`` at least ``margin`` pixels inside the brain; row and column, ``(2,)``."""
    inside = ndimage.distance_transform_edt(brain_of(anatomy)) > margin
    return rng.choice(np.argwhere(allowed & inside)).astype(np.float64)


def ventricles_of(anatomy: Array) -> Mask:
    """Fluid deep inside the brain, ``(H, W)``."""
    fluid = ndimage.gaussian_filter(anatomy, 1) < 0.42
    return fluid & (ndimage.distance_transform_edt(brain_of(anatomy)) > 30)


def white_matter_of(anatomy: Array) -> Mask:
    """White matter, away from the cortex and the fissure between the hemispheres, ``(H, W)``."""
    return ndimage.gaussian_filter(anatomy, 2) > 0.7


def mass(anatomy: Array, rng: np.random.Generator) -> Lesion:
    """Dark mass with a smooth edge that displaces its surroundings, like a low-grade tumour."""
    radius = rng.uniform(14, 21)
    centre = place(white_matter_of(anatomy), anatomy, radius + 6, rng)
    depth = draw_depth(centre, radius, 0.12, rng)
    signal = rng.uniform(0.36, 0.5) + 0.03 * smooth_field(rng, 3)
    opacity = rng.uniform(0.75, 0.95) * fade(depth, rng.uniform(1.2, 2.2))
    return Lesion(signal, opacity, depth > 0, mass_effect(centre, depth, rng.uniform(1.5, 3.5)))


def ring(anatomy: Array, rng: np.random.Generator) -> Lesion:
    """Dark core in a bright rim of uneven thickness, like an enhancing metastasis or an abscess."""
    radius = rng.uniform(13, 19)
    centre = place(white_matter_of(anatomy), anatomy, radius + 6, rng)
    depth = draw_depth(centre, radius, 0.08, rng)
    rim_width = rng.uniform(3.5, 5.5) * np.exp(0.2 * smooth_field(rng, 6))
    core = fade(depth - rim_width, 0.7)
    rim = rng.uniform(1.0, 1.1) + 0.03 * smooth_field(rng, 2)
    signal = core * rng.uniform(0.35, 0.5) + (1 - core) * rim
    return Lesion(signal, 0.92 * fade(depth, 0.8), depth > 0, mass_effect(centre, depth, rng.uniform(0.5, 2)))


def haemorrhage(anatomy: Array, rng: np.random.Generator) -> Lesion:
    """Bright ragged blob of uneven signal, like a subacute bleeding."""
    radius = rng.uniform(11, 17)
    centre = place(white_matter_of(anatomy), anatomy, radius + 6, rng)
    depth = draw_depth(centre, radius, 0.24, rng) + 0.8 * smooth_field(rng, 2)
    signal = rng.uniform(0.98, 1.1) + 0.05 * smooth_field(rng, 3)
    opacity = rng.uniform(0.8, 0.95) * fade(depth, rng.uniform(0.8, 1.5))
    return Lesion(signal, opacity, depth > 0, mass_effect(centre, depth, rng.uniform(0, 1.5)))


def foci(anatomy: Array, rng: np.random.Generator) -> Lesion:
    """Several small foci in the white matter beside the ventricles, all dark (as in demyelination) or all bright."""
    near = ndimage.distance_transform_edt(~ventricles_of(anatomy))
    allowed = (near > 4) & (near < 18) & white_matter_of(anatomy)
    centres = [place(allowed, anatomy, 12, rng) for _ in range(rng.integers(3, 6))]
    depth = np.max([draw_depth(centre, rng.uniform(4.5, 7), 0.18, rng) for centre in centres], axis=0)
    bright = rng.random() < 0.4
    signal = np.full(SHAPE, rng.uniform(1.0, 1.1) if bright else rng.uniform(0.4, 0.55))
    return Lesion(signal, rng.uniform(0.75, 0.95) * fade(depth, 0.7), depth > 0, np.zeros((2, *SHAPE)))


Kind = Callable[[Array, np.random.Generator], Lesion]
KINDS: tuple[Kind, ...] = (mass, ring, haemorrhage, foci)


def make_normal(template: Template, level: float, rng: np.random.Generator) -> Array:
    """Make a normal image, grey values in [0, 255], ``(H, W)``."""
    return expose(template.cut(draw_plane(level, rng)), rng)


def make_abnormal(template: Template, level: float, kind: Kind, rng: np.random.Generator) -> tuple[Array, Array]:
    """Make an abnormal image and its mask, grey values in [0, 255], ``(H, W)`` each."""
    plane = draw_plane(level, rng)
    lesion = kind(template.cut(plane), rng)
    # The plane is displaced rather than the image, so that no pixel is interpolated twice: a blur would tell.
    source = pixel_grid() - lesion.push
    plane = np.stack([ndimage.map_coordinates(axis, source, order=1, mode="nearest") for axis in plane])
    anatomy = template.cut(plane)
    brain = brain_of(anatomy)
    image = np.where(brain, anatomy + lesion.opacity * (lesion.signal - anatomy), anatomy)
    return expose(image, rng), np.where(lesion.extent & brain, 255.0, 0.0)


def save(image: Array, path: Path) -> None:
    """Write grey values in [0, 255] as an 8-bit PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.round().astype(np.uint8)).save(path, optimize=True)


def make_sample(output: Path, seed: int) -> None:
    """Write the whole data set.

    Every image has a random stream of its own, and every part holds each level (and each kind of lesion) equally
    often, in random order.

    Args:
        output (Path): Folder to write into; files of the same names are overwritten.
        seed (int): Seed of all random streams.
    """
    template = Template.load()
    for stream, (part, count) in enumerate({"train/normal": TRAIN_COUNT, "test/normal": TEST_COUNT}.items()):
        levels = np.random.default_rng([seed, stream]).permutation(np.resize(LEVELS, count))
        for index, level in enumerate(levels):
            image = make_normal(template, level, np.random.default_rng([seed, stream, index]))
            save(image, output / part / f"{index:03}.png")
    order = np.random.default_rng([seed, 2])
    levels, kinds = order.permutation(np.resize(LEVELS, TEST_COUNT)), order.permutation(TEST_COUNT) % len(KINDS)
    for index, (level, kind) in enumerate(zip(levels, kinds, strict=True)):
        image, mask = make_abnormal(template, level, KINDS[kind], np.random.default_rng([seed, 2, index]))
        save(image, output / "test/abnormal" / f"{index:03}.png")
        save(mask, output / "masks/abnormal" / f"{index:03}.png")


def main() -> None:
    """Read the command line and write the data set."""
    parser = argparse.ArgumentParser(description="Make the sample data set (needs numpy, scipy, pillow and nilearn).")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into, e.g. datasets/sample")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws (default: 0, the shipped set)")
    arguments = parser.parse_args()
    make_sample(arguments.output, arguments.seed)


if __name__ == "__main__":
    main()
