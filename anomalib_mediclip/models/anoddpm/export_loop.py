# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The reverse diffusion as a loop of the graph: an exported file holds the U-Net once, and not once for each step."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch._higher_order_ops.scan import scan  # the one loop that torch.onnx translates and that knows its length

from anomalib_mediclip.models.anoddpm.diffusion import Diffusion


def jump_in_loop(
    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noisy: torch.Tensor,
    diffusion: Diffusion,
    times: Sequence[int],
) -> torch.Tensor:
    """Take the noise away in steps without new noise (DDIM with eta 0), while the model is exported.

    The result is that of :meth:`Diffusion.estimate` and :meth:`Diffusion.jump` in turn, but for rounding.

    Args:
        network (Callable[[torch.Tensor, torch.Tensor], torch.Tensor]): Tells the noise of images ``(B, C, H, W)`` at
            times ``(B,)``.
        noisy (torch.Tensor): Images ``(B, C, H, W)`` at the first of the times.
        diffusion (Diffusion): Schedule.
        times (Sequence[int]): Times in falling order.

    Returns:
        torch.Tensor: Images without noise, in [-1, 1], same shape.
    """
    kept = diffusion.kept[list(times)]
    earlier = np.append(kept[1:], 1.0)
    weights = torch.from_numpy(np.sqrt(np.stack([kept, 1 - kept, earlier, 1 - earlier], 1))).to(noisy)

    def step(noisy: torch.Tensor, at: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        time, (of_image, of_noise, next_of_image, next_of_noise) = at[0], at[1].unbind()
        noise = network(noisy, time.reshape(1).expand(noisy.shape[0])).to(noisy)
        estimate = ((noisy - of_noise * noise) / of_image).clamp(-1, 1)
        return next_of_image * estimate + next_of_noise * noise, time.clone()  # a loop must collect something

    clean, _ = scan(step, noisy, (torch.tensor(times, device=noisy.device), weights))
    return clean
