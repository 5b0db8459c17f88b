# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CutPaste: Self-Supervised Learning for Anomaly Detection and Localization (Li et al., CVPR 2021).

Paper: https://arxiv.org/abs/2104.04015
"""

from anomalib_mediclip.models.cut_paste.lightning_model import CutPaste
from anomalib_mediclip.models.cut_paste.torch_model import CutPasteModel

__all__ = ["CutPaste", "CutPasteModel"]
