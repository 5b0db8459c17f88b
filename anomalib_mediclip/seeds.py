# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Seeds that follow the global one where none is given."""

import os


def used_seed(seed: int | None) -> int:
    """Return the seed to use: the one given, else that of ``seed_everything``, else 0.

    Args:
        seed (int | None): Seed that a model or a data module was given.

    Returns:
        int: Seed.

    Raises:
        ValueError: If it is negative.

    Example:
        >>> used_seed(3)
        3
    """
    used = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
    if used < 0:
        msg = f"seed={used}: it must not be negative"
        raise ValueError(msg)
    return used
