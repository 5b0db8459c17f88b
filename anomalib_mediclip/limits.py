# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Limit of the size of images, which all processes of a run share through the environment."""

import os

MAX_MEGAPIXELS = 256.0
VARIABLE = "ANOMALIB_MEDICLIP_MAX_MEGAPIXELS"


def max_megapixels() -> float:
    """Return the size above which an image is refused.

    Returns:
        float: Size in megapixels: the one set, or 256.

    Raises:
        ValueError: If the environment holds no positive number.
    """
    given = os.environ.get(VARIABLE, str(MAX_MEGAPIXELS))
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        msg = f"{VARIABLE}={given}: it must be a positive number"
        raise ValueError(msg)
    return limit


def set_max_megapixels(limit: float) -> None:
    """Set the size above which an image is refused, for this process and those that it starts.

    Args:
        limit (float): Size in megapixels, above 0.
    """
    os.environ[VARIABLE] = str(limit)
    max_megapixels()
