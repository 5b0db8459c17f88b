# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Threads that draw the pictures of a batch."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from anomalib_mediclip.quiet import quiet

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function for every item: Pillow and OpenCV release the interpreter while they work.

    There is a thread for each processor. More would be no faster, and the C library keeps memory for each.

    Args:
        function (Callable[[Item], Result]): What to call. Warnings of decoders are silent: the loader has given them.
        items (Iterable[Item]): Its arguments.

    Returns:
        list[Result]: What it returned, in order.
    """
    with quiet("anomalib_mediclip.io.decoding"), ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(function, items))
