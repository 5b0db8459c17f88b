# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SQUID: Deep Feature In-Painting for Unsupervised Anomaly Detection (Xiang et al., CVPR 2023).

Paper: https://arxiv.org/abs/2111.13495
"""

from anomalib_mediclip.models.squid.lightning_model import SQUID
from anomalib_mediclip.models.squid.torch_model import SQUIDModel

__all__ = ["SQUID", "SQUIDModel"]
