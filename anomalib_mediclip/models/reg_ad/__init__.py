# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""RegAD: Registration based Few-Shot Anomaly Detection (Huang et al., ECCV 2022).

Paper: https://arxiv.org/abs/2207.07361
"""

from anomalib_mediclip.models.reg_ad.lightning_model import RegAD
from anomalib_mediclip.models.reg_ad.torch_model import RegADModel

__all__ = ["RegAD", "RegADModel"]
