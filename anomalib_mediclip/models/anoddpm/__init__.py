# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models (Wyatt et al., CVPR workshop 2022).

Paper: https://openaccess.thecvf.com/content/CVPR2022W/NTIRE/html/Wyatt_AnoDDPM_CVPRW_2022_paper.html
"""

from anomalib_mediclip.models.anoddpm.lightning_model import AnoDDPM
from anomalib_mediclip.models.anoddpm.torch_model import AnoDDPMModel

__all__ = ["AnoDDPM", "AnoDDPMModel"]
