# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Ray and Slurm: how they are reached, and that all nodes agree. What runs there is not known here."""
