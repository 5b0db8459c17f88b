# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Predictions of archives with millions of images, on one machine or many (``anomalib mediclip predict_archive``)."""

from anomalib_mediclip.archive.prediction import Summary, Workers, conclude, predict_archive

__all__ = ["Summary", "Workers", "conclude", "predict_archive"]
