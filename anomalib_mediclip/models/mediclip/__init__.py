# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP: Adapting CLIP for Few-shot Medical Image Anomaly Detection (Zhang et al., MICCAI 2024).

Paper: https://arxiv.org/abs/2405.11315
"""

from anomalib_mediclip.models.mediclip.lightning_model import MediCLIP
from anomalib_mediclip.models.mediclip.torch_model import MediCLIPModel

__all__ = ["MediCLIP", "MediCLIPModel"]
