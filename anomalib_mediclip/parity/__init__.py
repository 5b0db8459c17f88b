# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Parity report: what every exported format costs, and how far its predictions are from those of the checkpoint."""

from anomalib_mediclip.parity.report import write_parity_report

__all__ = ["write_parity_report"]
