# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Few-shot benchmark: models x data sets x sizes of the support set x seeds, from one file, and its report."""

from anomalib_mediclip.benchmark.pipeline import FewShotBenchmark

__all__ = ["FewShotBenchmark"]
