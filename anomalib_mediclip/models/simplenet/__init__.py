# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SimpleNet: A Simple Network for Image Anomaly Detection and Localization (Liu et al., CVPR 2023).

Paper: https://arxiv.org/abs/2303.15140
"""

from anomalib_mediclip.models.simplenet.lightning_model import SimpleNet
from anomalib_mediclip.models.simplenet.torch_model import SimpleNetModel

__all__ = ["SimpleNet", "SimpleNetModel"]
