# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""AnoDDPM as a PyTorch module, in the order of the paper's section 3.

Grey image -> simplex noise of the first ``partial_steps`` of a diffusion -> the U-Net takes it away, step by step ->
the squared difference to the image is the map. In training the U-Net learns to tell the noise of normal images.

Paper: https://openaccess.thecvf.com/content/CVPR2022W/NTIRE/html/Wyatt_AnoDDPM_CVPRW_2022_paper.html
"""

from collections.abc import Callable, Sequence

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_mediclip.models.anoddpm.anomaly_map import AnomalyMapGenerator
from anomalib_mediclip.models.anoddpm.diffusion import Diffusion, jump_times
from anomalib_mediclip.models.anoddpm.export_loop import jump_in_loop
from anomalib_mediclip.models.anoddpm.network import averaged, make_unet
from anomalib_mediclip.models.anoddpm.simplex import Scales, draw_permutations, simplex_fields
from anomalib_mediclip.models.components.grey_views import to_grey
from anomalib_mediclip.seeds import generator_of


class AnoDDPMModel(nn.Module):
    """U-Net, its average, and the partial diffusion.

    Args:
        image_size (tuple[int, int], optional): Height and width of the images in pixels. Defaults to ``(256, 256)``.
        channels (Sequence[int], optional): Width of each level of the U-Net.
            Defaults to ``(128, 128, 256, 256, 512, 512)``.
        residual_blocks (int, optional): Residual blocks of each level. Defaults to ``2``.
        attention (Sequence[bool], optional): Which levels have self-attention. Defaults to the last three of six.
        heads (int, optional): Heads of the attention. Defaults to ``2``.
        scales (Scales, optional): Scales of the noise. Defaults to those of the paper.
        timesteps (int, optional): Steps of the whole diffusion. Defaults to ``1000``.
        partial_steps (int, optional): Steps by which images are made noisy, lambda in the paper. Defaults to ``250``.
        sampling_steps (int | None, optional): Steps in which the noise is taken away, without new noise (DDIM).
            Defaults to ``None``: all of them, with new noise (paper).
        ema_decay (float, optional): Decay of the average of the weights. Defaults to ``0.9999``.
        seed (int, optional): Seed of the initial weights and of the noise at inference. Defaults to ``0``.

    Raises:
        ModuleNotFoundError: If MONAI is missing.
        ValueError: If options do not fit together.

    Attributes:
        permutations (torch.Tensor): They define the noise at inference, uint8 of shape ``(partial_steps, 256)``: the
            result of an image depends neither on its batch nor on the order of images.
        first_noise (torch.Tensor): Noise that makes images noisy at inference, ``(1, 1, H, W)``.

    Example:
        >>> import torch
        >>> model = AnoDDPMModel((16, 16), (8, 8), 1, (False, True), partial_steps=20, sampling_steps=2).eval()
        >>> predictions = model(torch.rand(2, 3, 16, 16))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([2, 1, 16, 16]), torch.Size([2]))
    """

    permutations: torch.Tensor
    first_noise: torch.Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: Sequence[int] = (128, 128, 256, 256, 512, 512),
        residual_blocks: int = 2,
        attention: Sequence[bool] = (False, False, False, True, True, True),
        heads: int = 2,
        scales: Scales = Scales(),  # noqa: B008  # it cannot be changed
        timesteps: int = 1000,
        partial_steps: int = 250,
        sampling_steps: int | None = None,
        ema_decay: float = 0.9999,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_steps(timesteps, partial_steps, sampling_steps)
        _check_size(image_size, len(channels))
        self.scales, self.sampling_steps, self.partial_steps = scales, sampling_steps, partial_steps
        self.diffusion = Diffusion(timesteps)
        self.network = make_unet(channels, residual_blocks, attention, heads, seed)
        self.average = averaged(self.network, ema_decay)
        self.anomaly_map_generator = AnomalyMapGenerator()
        permutations = draw_permutations(partial_steps, generator_of(seed))
        self.register_buffer("permutations", permutations.to(torch.uint8))
        self.register_buffer("first_noise", self._noise_at(partial_steps - 1, image_size))

    def forward(self, images: torch.Tensor, progress: Callable[[], object] | None = None) -> InferenceBatch:
        """Score images (paper, section 3.3).

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.
            progress (Callable[[], object] | None, optional): Called after each step of the diffusion.
                Defaults to ``None``.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both in [0, 1].
        """
        predictions: InferenceBatch = self.anomaly_map_generator(
            2 * to_grey(images) - 1, 2 * self.reconstruct(images, progress) - 1
        )
        return predictions

    def reconstruct(self, images: torch.Tensor, progress: Callable[[], object] | None = None) -> torch.Tensor:
        """Make images noisy, and take the noise away with the averaged weights (paper, section 3.1).

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.
            progress (Callable[[], object] | None, optional): Called after each step. Defaults to ``None``.

        Returns:
            torch.Tensor: Grey images ``(B, 1, H, W)`` in [0, 1].
        """
        diffusion, last = self.diffusion, self.partial_steps - 1
        noisy = diffusion.jump(2 * to_grey(images) - 1, self.first_noise, last)
        times = jump_times(self.partial_steps, self.sampling_steps or self.partial_steps)
        if torch.compiler.is_exporting():
            return (jump_in_loop(self.average, noisy, diffusion, times) + 1) / 2
        for time, earlier in zip(times, [*times[1:], -1], strict=True):
            at_time = torch.full((len(noisy),), time, device=noisy.device)
            noise = self.average(noisy, at_time).to(noisy)
            estimate = diffusion.estimate(noisy, noise, time)
            if self.sampling_steps is None:
                fresh = self._noise_at(time, noisy.shape[2:]).to(noisy) if time else None
                noisy = diffusion.step(noisy, estimate, fresh, time)
            else:
                noisy = diffusion.jump(estimate, noise, earlier)
            if progress is not None:
                progress()
        return (noisy + 1) / 2

    def denoising_loss(self, images: torch.Tensor, times: torch.Tensor, permutations: torch.Tensor) -> torch.Tensor:
        """Have the U-Net tell the noise of images: the mean squared error of its answer (paper, section 3.1).

        Args:
            images (torch.Tensor): Grey images ``(B, 1, H, W)`` in [0, 1].
            times (torch.Tensor): Time of each image, int64 of shape ``(B,)``.
            permutations (torch.Tensor): Permutation that defines the noise of each image, int64 of shape ``(B, 256)``.

        Returns:
            torch.Tensor: Loss, scalar.
        """
        size = (images.shape[2], images.shape[3])
        noise = simplex_fields(permutations, times, size, self.scales)
        noisy = self.diffusion.add_noise(2 * images - 1, noise, times)
        return (self.network(noisy, times).float() - noise).square().mean()

    def _noise_at(self, time: int, size: Sequence[int]) -> torch.Tensor:
        """Return the noise ``(1, 1, H, W)`` of a time at inference."""
        permutation, height, width = self.permutations[time : time + 1].long(), size[0], size[1]
        return simplex_fields(permutation, torch.tensor([time]), (height, width), self.scales)


def _check_steps(timesteps: int, partial_steps: int, sampling_steps: int | None) -> None:
    """Refuse numbers of steps that do not fit together."""
    if not 1 <= partial_steps <= timesteps:
        msg = f"partial_steps={partial_steps}: images can be made noisy by 1 to timesteps={timesteps} steps."
        raise ValueError(msg)
    if sampling_steps is not None and not 1 <= sampling_steps <= partial_steps:
        msg = (
            f"sampling_steps={sampling_steps}: the noise of partial_steps={partial_steps} steps is taken away in 1 to "
            f"{partial_steps} steps; null is all of them, with new noise."
        )
        raise ValueError(msg)


def _check_size(image_size: tuple[int, int], levels: int) -> None:
    """Refuse sizes that the levels of the U-Net cannot halve."""
    unit = 2 ** (levels - 1)
    if any(side % unit or side < unit for side in image_size):
        lower = tuple(max(unit, side // unit * unit) for side in image_size)
        upper = tuple(-(-side // unit) * unit for side in image_size)
        msg = (
            f"image_size={tuple(image_size)}: a U-Net of {levels} levels halves both sides {levels - 1} times, so they "
            f"must be multiples of {unit}. Use {upper}{f' or {lower}' if lower != upper else ''}, or fewer channels."
        )
        raise ValueError(msg)
