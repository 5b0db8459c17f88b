# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Draw of the support set, and its order in each epoch."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Literal

import numpy as np
from torch.utils.data import Sampler

KShot = int | Literal["all"] | None


def draw_support_set(pool: int, k_shot: KShot, seed: int) -> list[int]:
    """Draw the support set from a pool of normal images, without replacement.

    Args:
        pool (int): Number of images in the pool.
        k_shot (int | Literal["all"] | None): Number of images to draw; ``"all"`` or None takes all.
        seed (int): Seed of the draw.

    Returns:
        list[int]: Sorted positions in the pool.

    Raises:
        ValueError: If ``k_shot`` is another word, below 1 or above ``pool``.

    Example:
        >>> draw_support_set(pool=32, k_shot=4, seed=0)
        [8, 15, 19, 24]
    """
    if k_shot in ("all", None):
        return list(range(pool))
    if not isinstance(k_shot, int) or not 1 <= k_shot <= pool:
        msg = f"cannot draw k_shot={k_shot} images from a pool of {pool}: choose k_shot from 1 to {pool}, or all"
        raise ValueError(msg)
    return sorted(np.random.default_rng(seed).choice(pool, size=k_shot, replace=False).tolist())


class SupportSampler(Sampler[int]):
    """Shuffled positions that depend on the seed and the epoch only.

    So the order is the same with any number of workers and in a run that was resumed.

    Args:
        size (int): Number of images.
        seed (int): Seed of all epochs.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one.

        Args:
            epoch (int): Number of the epoch, from 0.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield every position once."""
        yield from np.random.default_rng([self.seed, self.epoch]).permutation(self.size).tolist()

    def __len__(self) -> int:
        """Return the number of images."""
        return self.size


class BalancedSampler(SupportSampler):
    """Shuffled positions of several data sets in turn, which depend on the seed and the epoch only.

    Among any positions that follow one another the sets are equally frequent, up to one position. So every batch is
    balanced, whatever its size. An epoch shows each image of the largest set once, and begins smaller sets anew when
    they are through.

    Args:
        groups (Sequence[Sequence[int]]): Positions of the images of each set.
        seed (int): Seed of all epochs.

    Example:
        >>> list(BalancedSampler([[0, 1, 2, 3], [4, 5]], seed=1))
        [0, 4, 1, 5, 2, 4, 3, 5]
    """

    def __init__(self, groups: Sequence[Sequence[int]], seed: int = 0) -> None:
        super().__init__(len(groups) * max(map(len, groups)), seed)
        self.groups = groups

    def __iter__(self) -> Iterator[int]:
        """Yield positions of the sets in turn."""
        rng = np.random.default_rng([self.seed, self.epoch])
        turns = [self.groups[number] for number in rng.permutation(len(self.groups))]
        shuffled = [cycle(rng.permutation(group).tolist()) for group in turns]
        for _ in range(max(map(len, self.groups))):
            yield from map(next, shuffled)
