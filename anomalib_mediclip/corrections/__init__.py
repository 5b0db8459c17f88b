# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What a person decides after the training: another threshold, or more images that are normal."""

from anomalib_mediclip import models  # noqa: F401  # first: what is imported below needs all of them
