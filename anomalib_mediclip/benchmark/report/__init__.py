# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The report of a few-shot benchmark: tables, figures and significance, in Markdown, HTML and CSV."""

from anomalib_mediclip.benchmark.report.page import write_report

__all__ = ["write_report"]
