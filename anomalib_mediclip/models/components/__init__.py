# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Parts that the models share: training protocol, frozen encoder, checkpoints, records, pre-processing."""
