# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""U-Net that tells the noise of an image, from MONAI, and the average of its weights."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

MOST_GROUPS = 32  # of channels that are normalised together


def make_unet(
    channels: Sequence[int], residual_blocks: int, attention: Sequence[bool], heads: int, seed: int
) -> nn.Module:
    """Make the U-Net of guided diffusion (paper, section 4), whose output is 0 at first.

    Args:
        channels (Sequence[int]): Width of each level, from the whole image down; each level has half the size.
        residual_blocks (int): Residual blocks of each level.
        attention (Sequence[bool]): Which levels have self-attention.
        heads (int): Heads of the attention.
        seed (int): Seed of the initial weights.

    Returns:
        nn.Module: Network of noisy images ``(B, 1, H, W)`` and times ``(B,)``; returns noise ``(B, 1, H, W)``.

    Raises:
        ModuleNotFoundError: If MONAI is missing.
        ValueError: If the widths do not fit.
    """
    groups = min(MOST_GROUPS, *channels)
    if len(attention) != len(channels) or any(width % groups or width % heads for width in channels):
        msg = (
            f"channels={list(channels)}, attention={list(attention)}, heads={heads}: both lists must have the same "
            f"length, and the widths be multiples of {groups} and of the heads."
        )
        raise ValueError(msg)
    try:
        from monai.networks.nets import DiffusionModelUNet  # takes seconds to import
    except ModuleNotFoundError as error:
        msg = "AnoDDPM needs MONAI for its U-Net. Install it: pip install 'anomalib-mediclip[diffusion]'."
        raise ModuleNotFoundError(msg) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiffusionModelUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            num_res_blocks=residual_blocks,
            channels=list(channels),
            attention_levels=list(attention),
            norm_num_groups=groups,
            num_head_channels=[width // heads for width in channels],
            resblock_updown=True,
        )


class WarmedUpAverage:
    """Exponential average of weights that begins fast: the first n weights are not outweighed by the initial ones.

    Args:
        decay (float): Share of the average that an update keeps, in the long run.

    Example:
        >>> average = WarmedUpAverage(0.999)
        >>> average(torch.tensor(0.0), torch.tensor(11.0), 1).item()  # keeps 2 / 11
        9.0
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, average: torch.Tensor, present: torch.Tensor, updates: torch.Tensor | int) -> torch.Tensor:
        """Return the next average.

        Args:
            average (torch.Tensor): Average so far.
            present (torch.Tensor): Weights.
            updates (torch.Tensor | int): Number of updates so far, at least 1.

        Returns:
            torch.Tensor: New average.
        """
        count = int(updates)
        decay = min(self.decay, (1 + count) / (10 + count))
        return decay * average + (1 - decay) * present


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return the average of a network's weights, which is the network itself until it is updated.

    Args:
        network (nn.Module): Network.
        decay (float): See :class:`WarmedUpAverage`.

    Returns:
        AveragedModel: Copy of the network, without gradients.
    """
    return AveragedModel(network, avg_fn=WarmedUpAverage(decay)).requires_grad_(False)
