# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP, few-shot medical image anomaly detection, as a plugin of anomalib.

The public names are loaded on first use (PEP 562): the interpreter's start-up line imports this package in every
process, and must not pay for torch there.

Example:
    >>> from anomalib_mediclip import MediCLIP, MedicalFolder
    >>> MediCLIP.__name__, MedicalFolder.__name__
    ('MediCLIP', 'MedicalFolder')
"""

__version__ = "0.1.0"

_PUBLIC = {
    "AUROC": "anomalib_mediclip.evaluation",
    "AnoDDPM": "anomalib_mediclip.models",
    "AnoDDPMModel": "anomalib_mediclip.models",
    "AuxiliaryData": "anomalib_mediclip.data",
    "BUSI": "anomalib_mediclip.data",
    "BrainMRI": "anomalib_mediclip.data",
    "CalibrationPostProcessor": "anomalib_mediclip.evaluation",
    "CheXpert": "anomalib_mediclip.data",
    "CutPaste": "anomalib_mediclip.models",
    "CutPasteModel": "anomalib_mediclip.models",
    "MediCLIP": "anomalib_mediclip.models",
    "MediCLIPModel": "anomalib_mediclip.models",
    "MedicalAnomalyGenerator": "anomalib_mediclip.synthesis",
    "MedicalFolder": "anomalib_mediclip.data",
    "MedicalVisualizer": "anomalib_mediclip.prediction.pictures",
    "PatchSVDD": "anomalib_mediclip.models",
    "PatchSVDDModel": "anomalib_mediclip.models",
    "RegAD": "anomalib_mediclip.models",
    "RegADModel": "anomalib_mediclip.models",
    "SQUID": "anomalib_mediclip.models",
    "SQUIDModel": "anomalib_mediclip.models",
    "SimpleNet": "anomalib_mediclip.models",
    "SimpleNetModel": "anomalib_mediclip.models",
    "UnifiedData": "anomalib_mediclip.data",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _PUBLIC:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names without importing them."""
    return [*globals(), *__all__]
