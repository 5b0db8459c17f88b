# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen vision encoders: where their weights come from, and what makes them fast."""
