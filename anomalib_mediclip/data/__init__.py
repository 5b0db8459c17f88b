# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Data modules of few-shot medical data sets; importing this package makes them visible to anomalib.

Folders, arguments and labels of data sets say ``abnormal``; predictions, metrics and pictures say ``anomalous``.
"""

from anomalib_mediclip.data.auxiliary import AuxiliaryData
from anomalib_mediclip.data.brain_mri import BrainMRI
from anomalib_mediclip.data.busi import BUSI
from anomalib_mediclip.data.chexpert import CheXpert
from anomalib_mediclip.data.datamodule import FewShotDataModule
from anomalib_mediclip.data.dataset import MedicalDataset
from anomalib_mediclip.data.medical_folder import MedicalFolder
from anomalib_mediclip.data.samples import Sample
from anomalib_mediclip.data.support_set import BalancedSampler, SupportSampler, draw_support_set
from anomalib_mediclip.data.synthetic_validation import SyntheticValidationDataset
from anomalib_mediclip.data.unified import UnifiedData
from anomalib_mediclip.host.names import show_in

__all__ = [
    "BUSI",
    "AuxiliaryData",
    "BalancedSampler",
    "BrainMRI",
    "CheXpert",
    "FewShotDataModule",
    "MedicalDataset",
    "MedicalFolder",
    "Sample",
    "SupportSampler",
    "SyntheticValidationDataset",
    "UnifiedData",
    "draw_support_set",
]

show_in("anomalib.data", BUSI, BrainMRI, CheXpert, MedicalFolder, UnifiedData, AuxiliaryData)
