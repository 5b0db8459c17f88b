# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Memory that the C library keeps. All of it does nothing where the library is not glibc."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGE = 2**22  # bytes
GLIBC_LARGEST = 2**25  # bytes, to which glibc raises its own threshold while a program runs


def trim_memory() -> None:
    """Return memory that is free to the system.

    glibc keeps what the threads that draw and the layers of a model free. Over a volume of 500 slices, its pieces
    become 0.3 GB that nobody uses. A call takes 10 to 50 milliseconds.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def free_memory() -> None:
    """Delete objects that refer to each other and to nothing else, as DICOM objects do, and trim the memory."""
    gc.collect()
    trim_memory()


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Have glibc take blocks of 4 MB and more from the system one by one, for the time of a ``with`` block.

    Otherwise it cuts them from its heap, and uses few of them again: PatchCore's coreset search, which takes such a
    block in every step, would need 14 GB for 16 images in place of 1.5. A threshold of the user stays.

    Yields:
        None: Nothing.
    """
    set_option = _function("mallopt")
    if set_option is None or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        yield
        return
    set_option(M_MMAP_THRESHOLD, LARGE)
    try:
        yield
    finally:
        set_option(M_MMAP_THRESHOLD, GLIBC_LARGEST)
        set_option(M_TRIM_THRESHOLD, 2 * GLIBC_LARGEST)


def _function(name: str) -> Any:
    """Return a function of glibc, None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
