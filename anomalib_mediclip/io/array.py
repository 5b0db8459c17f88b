# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of image arrays before a model predicts them."""

from typing import Any

import numpy as np

MAX_PIXELS = 2**26  # of a batch: 0.8 GB of float32


def check_images(images: Any) -> None:
    """Refuse what a model would predict without complaint, and wrongly.

    Args:
        images (Any): Array or tensor that should hold RGB images in [0, 1] of shape ``(B, 3, H, W)``.

    Raises:
        TypeError: If the values are not floating-point numbers.
        ValueError: If shape, channels, range or size are wrong.

    Example:
        >>> check_images(np.zeros((1, 1, 8, 8), dtype=np.float32))
        Traceback (most recent call last):
            ...
        ValueError: The images have 1 channel, the model takes RGB. Repeat the grey channel three times.
    """
    shape = tuple(images.shape)
    if len(shape) != 4:
        msg = f"The images have shape {shape}, the model takes (B, 3, H, W)."
        raise ValueError(msg)
    if shape[1] != 3:
        raise ValueError(_wrong_channels(shape))
    if "float" not in str(images.dtype):
        msg = f"The images are {images.dtype}, the model takes float32 in [0, 1]. Divide 8-bit values by 255."
        raise TypeError(msg)
    if 0 in shape or shape[0] * shape[2] * shape[3] > MAX_PIXELS:
        msg = (
            f"The images have shape {shape}: a batch must have between 1 and {MAX_PIXELS} pixels. Predict fewer images "
            "at a time, or make them smaller first."
        )
        raise ValueError(msg)
    _check_range(float(images.min()), float(images.max()))


def _wrong_channels(shape: tuple[int, ...]) -> str:
    """Return the message about a wrong number of channels."""
    if shape[-1] in (1, 3, 4):
        return f"The images have shape {shape}, the model takes (B, 3, H, W). Put the channels second."
    cures = {1: "Repeat the grey channel three times.", 4: "Drop the alpha channel."}
    channels = f"{shape[1]} channel{'s' * (shape[1] != 1)}"
    return f"The images have {channels}, the model takes RGB. {cures.get(shape[1], 'Choose three.')}"


def _check_range(lowest: float, highest: float) -> None:
    """Refuse values that are not in [0, 1]; a thousandth beyond is rounding."""
    if lowest >= -1e-3 and highest <= 1 + 1e-3:
        return
    cure = "Divide them by 255." if lowest >= 0 and 1 < highest <= 255 else "Do not normalise; the model does."
    if not np.isfinite([lowest, highest]).all():
        cure = "Look for NaN and infinite values in the images."
    msg = f"The images range from {lowest:.4g} to {highest:.4g}, the model takes values in [0, 1]. {cure}"
    raise ValueError(msg)
