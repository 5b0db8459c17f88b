# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Multi-task anomaly synthesis (paper, section 2.4): normal images become training pairs of image and mask."""

from anomalib_mediclip.synthesis.generator import MedicalAnomalyGenerator, SynthesisOptions

__all__ = ["MedicalAnomalyGenerator", "SynthesisOptions"]
