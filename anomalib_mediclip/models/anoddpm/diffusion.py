# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Diffusion: how noise is added to an image, and how a step takes some of it away (Ho et al., 2020; Song et al., 2021).

The noise comes from outside: the schedulers of the libraries draw Gaussian noise within a step, and the method needs
simplex noise there.
"""

import numpy as np
import torch

FIRST_BETA, LAST_BETA = 1e-4, 2e-2


class Diffusion:
    """Schedule of a diffusion: its noise levels, and the steps between them.

    Times are indices from 0 to ``timesteps`` - 1. With a_t for the product of 1 - beta up to t, an image x at time t is
    sqrt(a_t) x + sqrt(1 - a_t) n.

    Args:
        timesteps (int, optional): Number of steps T; beta grows linearly from 1e-4 to 2e-2. Defaults to ``1000``.

    Attributes:
        betas (np.ndarray): Variance that each step adds, float64 of shape ``(T,)``.
        kept (np.ndarray): a_t, the share of the image in the variance, float64 of shape ``(T,)``.

    Example:
        >>> diffusion = Diffusion()
        >>> diffusion.kept[[0, 249]].round(4).tolist()
        [0.9999, 0.5241]
    """

    def __init__(self, timesteps: int = 1000) -> None:
        self.betas = np.linspace(FIRST_BETA, LAST_BETA, timesteps)
        self.kept = (1 - self.betas).cumprod()

    def add_noise(self, images: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Bring images to a time.

        Args:
            images (torch.Tensor): Images ``(B, C, H, W)`` in [-1, 1].
            noise (torch.Tensor): Noise, same shape.
            times (torch.Tensor): Time of each image, int64 of shape ``(B,)``.

        Returns:
            torch.Tensor: Noisy images, same shape.
        """
        kept = self.kept[times.cpu().numpy()]
        of_image, of_noise = (
            torch.from_numpy(np.sqrt(share)).to(images).view(-1, 1, 1, 1) for share in (kept, 1 - kept)
        )
        return of_image * images + of_noise * noise

    def estimate(self, noisy: torch.Tensor, noise: torch.Tensor, time: int) -> torch.Tensor:
        """Return the image that a noisy image is, if this is its noise.

        Args:
            noisy (torch.Tensor): Images at a time, ``(B, C, H, W)``.
            noise (torch.Tensor): Noise that they are thought to hold, same shape.
            time (int): Time.

        Returns:
            torch.Tensor: Images within [-1, 1], same shape.
        """
        kept = float(self.kept[time])
        return ((noisy - (1 - kept) ** 0.5 * noise) / kept**0.5).clamp(-1, 1)

    def step(self, noisy: torch.Tensor, estimate: torch.Tensor, fresh: torch.Tensor | None, time: int) -> torch.Tensor:
        """Go back by one time step, at random: the mean of the posterior, and new noise of variance beta.

        Args:
            noisy (torch.Tensor): Images at the time, ``(B, C, H, W)``.
            estimate (torch.Tensor): Images that they are thought to be, same shape.
            fresh (torch.Tensor | None): New noise that can be added to them; None at time 0, where none is added.
            time (int): Time.

        Returns:
            torch.Tensor: Images one time step earlier, same shape; at time 0 these are the estimated ones.
        """
        beta, kept = float(self.betas[time]), float(self.kept[time])
        before = float(self.kept[time - 1]) if time else 1.0
        mean = (before**0.5 * beta * estimate + (1 - beta) ** 0.5 * (1 - before) * noisy) / (1 - kept)
        return mean if fresh is None else mean + beta**0.5 * fresh

    def jump(self, estimate: torch.Tensor, noise: torch.Tensor, earlier: int) -> torch.Tensor:
        """Bring images and noise together at a time; from a later one this is a step of DDIM with eta 0.

        Args:
            estimate (torch.Tensor): Images that noisy ones are thought to be, ``(B, C, H, W)``.
            noise (torch.Tensor): Noise that they are thought to hold, same shape.
            earlier (int): Earlier time, -1 for images without noise.

        Returns:
            torch.Tensor: Images at the earlier time, same shape.
        """
        before = float(self.kept[earlier]) if earlier >= 0 else 1.0
        return before**0.5 * estimate + (1 - before) ** 0.5 * noise


def jump_times(partial_steps: int, sampling_steps: int) -> list[int]:
    """Choose the times of a reverse diffusion in few steps, evenly.

    Args:
        partial_steps (int): How many steps the images are away from clean ones.
        sampling_steps (int): Number of steps to take, at most ``partial_steps``.

    Returns:
        list[int]: Times in falling order; the first is ``partial_steps`` - 1, the last 0 if there are several.

    Example:
        >>> jump_times(250, 4), jump_times(250, 1)
        ([249, 166, 83, 0], [249])
    """
    return [round(time) for time in np.linspace(partial_steps - 1, 0, sampling_steps).tolist()]
