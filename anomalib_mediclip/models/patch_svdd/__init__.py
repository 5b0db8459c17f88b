# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation (Yi and Yoon, ACCV 2020).

Paper: https://arxiv.org/abs/2006.16067
"""

from anomalib_mediclip.models.patch_svdd.lightning_model import PatchSVDD
from anomalib_mediclip.models.patch_svdd.torch_model import PatchSVDDModel

__all__ = ["PatchSVDD", "PatchSVDDModel"]
