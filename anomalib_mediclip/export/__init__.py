# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What is exported, what is written beside it, and how it is loaded again."""

from anomalib_mediclip.export.artifact import load_artifact
from anomalib_mediclip.export.inference import ExportedModel

__all__ = ["ExportedModel", "load_artifact"]
