# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""From images as they are downloaded or exported to the folders that :class:`MedicalFolder` reads."""

from anomalib_mediclip.prepare.preparation import prepare

__all__ = ["prepare"]
