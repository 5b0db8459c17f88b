# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What the C library keeps, measured in processes of their own."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing")

RESIDENT = """
import re
from pathlib import Path

def resident(what="VmRSS"):
    return int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3
"""


def run(code: str) -> str:
    """Run code in a process, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", RESIDENT + code], capture_output=True, text=True, check=True)
    return done.stdout


def test_trimming_returns_what_is_free() -> None:
    before, free, trimmed = map(
        float,
        run("""
from anomalib_mediclip.memory import trim_memory
trim_memory()
before = resident()
blocks = [bytes(2000) for _ in range(100_000)]
blocks = blocks[::100]  # no page at the end of the heap is free
free = resident()
trim_memory()
print(before, free, resident())
""").split(),
    )
    assert free > before + 150  # megabytes
    assert trimmed < before + 50


def test_the_coreset_search_of_patchcore_uses_its_memory_again() -> None:
    taken = run("""
import torch
from anomalib.models.components.sampling import KCenterGreedy
from anomalib_mediclip.memory import large_blocks_apart
features = torch.rand(12544, 128)
before = resident()
with large_blocks_apart():
    KCenterGreedy(features, sampling_ratio=0.01).select_coreset_idxs()
print(resident("VmHWM") - before)
""")
    assert float(taken) < 200  # megabytes; 1400 without
