# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Models of the plugin; importing this package makes them visible to anomalib."""

from anomalib_mediclip.models.mediclip import MediCLIP, MediCLIPModel
from anomalib_mediclip.models.simplenet import SimpleNet, SimpleNetModel
from anomalib_mediclip.registration import register

__all__ = ["MediCLIP", "MediCLIPModel", "SimpleNet", "SimpleNetModel"]

register("anomalib.models")
register("anomalib.engine")
