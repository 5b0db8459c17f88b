# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of what users pass to the generator."""

import math
from collections.abc import Sequence

import torch

TASKS = ("cut_paste", "gauss_intensity", "source", "identity")
MINIMUM_SIDE = 32
# Resizing in floating point may leave [0, 1] by this much.
ROUNDING = 1e-5


def check_image(image: torch.Tensor, dimensions: tuple[int, ...]) -> None:
    """Check the shape, type and range of an image or batch.

    Args:
        image (torch.Tensor): What was passed as the image.
        dimensions (tuple[int, ...]): 3 if ``(C, H, W)`` is accepted, 4 if ``(B, C, H, W)`` is.

    Raises:
        ValueError: If it is not a float image with values in [0, 1].
    """
    shape = tuple(image.shape)
    if image.ndim not in dimensions or shape[-3] not in (1, 3) or min(shape[-2:]) < MINIMUM_SIDE or not len(image):
        wanted = " or ".join({3: "(C, H, W)", 4: "(B, C, H, W)"}[number] for number in dimensions)
        msg = f"image of shape {shape}: pass {wanted} with 1 or 3 channels and sides of at least {MINIMUM_SIDE} pixels"
        raise ValueError(msg)
    if not image.is_floating_point():
        msg = f"image of type {image.dtype}: pass floating point values in [0, 1], such as image.float() / 255"
        raise ValueError(msg)
    low, high = (float(value) for value in image.aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        msg = f"image with values from {low:g} to {high:g}: scale to [0, 1] before synthesis and normalise after it"
        raise ValueError(msg)


def check_names(names: Sequence[str] | None, number: int) -> Sequence[str]:
    """Return one name for each image.

    Args:
        names (Sequence[str] | None): What was passed as names; None stands for "0", "1" and so on.
        number (int): Number of images.

    Returns:
        Sequence[str]: Names.

    Raises:
        ValueError: If there are more or fewer names than images.
    """
    if names is None:
        return [str(index) for index in range(number)]
    if isinstance(names, str) or len(names) != number:
        msg = f"names={names!r} for {number} image(s): pass a list of one name for each image"
        raise ValueError(msg)
    return names


def check_tasks(tasks: dict[str, float]) -> None:
    """Check the weights of the tasks.

    Args:
        tasks (dict[str, float]): Relative frequency by name.

    Raises:
        ValueError: If a name is unknown, a weight is negative or none is above 0.
    """
    if unknown := sorted(set(tasks) - set(TASKS)):
        msg = f"unknown tasks {unknown}: choose from {list(TASKS)}"
        raise ValueError(msg)
    if not all(math.isfinite(weight) and weight >= 0 for weight in tasks.values()) or not any(tasks.values()):
        msg = f"tasks={tasks}: weights must not be negative, and at least one must be above 0"
        raise ValueError(msg)


def check_choice(argument: str, value: object, choices: Sequence[object]) -> None:
    """Raise a ValueError that names argument, value and choices unless the value is one of them."""
    if value not in choices:
        msg = f"{argument}={value!r}: choose from {list(choices)}"
        raise ValueError(msg)


def check_not_negative(argument: str, value: int) -> None:
    """Raise a ValueError that names argument and value if it is below 0."""
    if value < 0:
        msg = f"{argument}={value}: pass an integer from 0 upwards"
        raise ValueError(msg)
