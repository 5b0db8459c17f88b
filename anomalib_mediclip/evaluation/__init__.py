# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Exact metrics on raw scores, and the calibration of shown scores."""

from anomalib_mediclip.evaluation.aupro import exact_aupro
from anomalib_mediclip.evaluation.auroc import AUROC, exact_auroc
from anomalib_mediclip.evaluation.calibration import (
    CalibrationPostProcessor,
    DistanceCalibrationPostProcessor,
    LogitCalibrationPostProcessor,
    calibrate,
)
from anomalib_mediclip.evaluation.evaluator import MedicalEvaluator

__all__ = [
    "AUROC",
    "CalibrationPostProcessor",
    "DistanceCalibrationPostProcessor",
    "LogitCalibrationPostProcessor",
    "MedicalEvaluator",
    "calibrate",
    "exact_aupro",
    "exact_auroc",
]
