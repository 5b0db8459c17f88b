# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Models of the plugin; importing this package makes them visible to anomalib."""

from anomalib_mediclip.host import engine
from anomalib_mediclip.host.names import allow_models_of, show_in
from anomalib_mediclip.models.anoddpm import AnoDDPM, AnoDDPMModel
from anomalib_mediclip.models.cut_paste import CutPaste, CutPasteModel
from anomalib_mediclip.models.mediclip import MediCLIP, MediCLIPModel
from anomalib_mediclip.models.patch_svdd import PatchSVDD, PatchSVDDModel
from anomalib_mediclip.models.reg_ad import RegAD, RegADModel
from anomalib_mediclip.models.simplenet import SimpleNet, SimpleNetModel
from anomalib_mediclip.models.squid import SQUID, SQUIDModel

__all__ = [
    "SQUID",
    "AnoDDPM",
    "AnoDDPMModel",
    "CutPaste",
    "CutPasteModel",
    "MediCLIP",
    "MediCLIPModel",
    "PatchSVDD",
    "PatchSVDDModel",
    "RegAD",
    "RegADModel",
    "SQUIDModel",
    "SimpleNet",
    "SimpleNetModel",
]

show_in("anomalib.models", AnoDDPM, CutPaste, MediCLIP, PatchSVDD, RegAD, SimpleNet, SQUID)
allow_models_of("anomalib_mediclip", "anomalib_mediclip.models")
engine.install()  # for those who import the plugin first, with the import hook switched off
