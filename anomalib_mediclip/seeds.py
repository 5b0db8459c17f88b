# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Seeds that follow the global one where none is given."""

import hashlib
import os

import numpy as np
import torch


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


def number_of(name: str) -> int:
    """Return a number that stands for a name in a seed: the same on every machine.

    Args:
        name (str): Name, such as that of an image.

    Returns:
        int: Number below 2^64.

    Example:
        >>> number_of("patient_1.png")
        17597073455248215875
    """
    digest = hashlib.sha256(name.encode("utf-8", errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little")


def generator_of(*entropy: int) -> torch.Generator:
    """Return a source of random numbers on the CPU that depends on some numbers only, such as a seed and a step.

    Zeros at the end of the list change nothing.

    Args:
        *entropy (int): Numbers, 0 or more.

    Returns:
        torch.Generator: Generator.

    Example:
        >>> generator_of(0, 1).initial_seed() == generator_of(0, 1, 0).initial_seed()
        True
    """
    (seed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))
