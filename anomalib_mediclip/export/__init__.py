# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Exports: their methods, the files beside them, and the way back."""

import anomalib.models  # noqa: F401  # first: it imports the plugin's models, and these import this package

from anomalib_mediclip.export.artifact import load_artifact
from anomalib_mediclip.export.inference import ExportedModel

__all__ = ["ExportedModel", "load_artifact"]
