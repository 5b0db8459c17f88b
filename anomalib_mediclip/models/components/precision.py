# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Parts of a model that mixed precision would spoil."""

import contextlib

import torch


def full_precision(device: str) -> contextlib.AbstractContextManager[None]:
    """Leave mixed precision for the time of a ``with`` block: in bfloat16 similar things become equal, and scores tie.

    Args:
        device (str): Type of the device that computes.

    Returns:
        contextlib.AbstractContextManager[None]: Context; it does nothing, and leaves no trace in an exported graph,
        where precision is not mixed.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), full_precision("cpu"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
