# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Backbones of timm that learn: all stages, the last ones, or none."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from anomalib_mediclip.encoders.weights import create_timm

LearningStages = Literal["all"] | int

NO_CHAIN = "{!r} is no chain of stages. Use a convolutional backbone of timm, such as a ResNet."


class StagedEncoder(nn.Module):
    """Convolutional backbone of timm, cut into its stages, some of which learn.

    In contrast to :class:`~anomalib_mediclip.encoders.timm_encoder.TimmVisionEncoder`, which is frozen and folded, this
    one may be trained, and a caller may change feature maps between two stages. Where all stages learn, batch
    normalisation uses the statistics of the batch in training; where only some learn, it keeps the published ones,
    which a few images could not replace. Stages that do not learn stay in evaluation mode.

    Args:
        encoder (str): ``"timm/<model>"``.
        weights (str | None): ``"pretrained"``, the path of a checkpoint, or ``None`` for random weights.
        layers (int): Number of stages to keep; the rest of the backbone is left out.
        image_size (tuple[int, int]): Height and width of the input in pixels.
        learning (LearningStages, optional): ``"all"``, or how many of the last stages learn. Defaults to ``0``.
        normalise (bool, optional): Whether images are normalised with the mean and the standard deviation of the
            images that the backbone was published for. Defaults to ``True``.
        seed (int, optional): Seed of random weights. Defaults to ``0``.

    Attributes:
        channels (list[int]): Width of each stage.
        stages (nn.ModuleList): The stages; each takes what the one before returns, the first one normalised images.

    Raises:
        ValueError: If the backbone or a stage does not exist, or the backbone is no chain of stages.
        RuntimeError: If the weights cannot be downloaded.

    Example:
        >>> encoder = StagedEncoder("timm/resnet18", None, layers=3, image_size=(64, 64))
        >>> [tuple(features.shape) for features in encoder(torch.rand(1, 3, 64, 64))]
        [(1, 64, 32, 32), (1, 64, 16, 16), (1, 128, 8, 8)]
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        encoder: str,
        weights: str | None,
        layers: int,
        image_size: tuple[int, int],
        learning: LearningStages = 0,
        normalise: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if learning != "all" and not 0 <= learning <= layers:
            msg = f"{learning} stages shall learn: give 'all', or a number from 0 to {layers}, the stages in use."
            raise ValueError(msg)
        tower = create_timm(encoder, weights, list(range(1, layers + 1)), seed)
        mean, std = (tower.default_cfg["mean"], tower.default_cfg["std"]) if normalise else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.channels: list[int] = tower.feature_info.channels()
        self.stages = _cut(tower, encoder).to(memory_format=torch.channels_last)  # twice as fast on a CPU
        _check(self.stages, tower, encoder, image_size)
        self.learning = learning
        for stage in self.learning_stages:
            stage.requires_grad_(True)

    @property
    def learning_stages(self) -> list[nn.Module]:
        """Stages that learn."""
        number = len(self.stages) if self.learning == "all" else self.learning
        return list(self.stages)[len(self.stages) - number :]

    def train(self, mode: bool = True) -> "StagedEncoder":
        """Put the stages that learn into training mode; the others stay in evaluation mode."""
        super().train(False)
        self.training = mode
        for stage in self.learning_stages if mode else ():
            stage.train()
            for module in stage.modules() if self.learning != "all" else ():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the first stage takes.

        Args:
            images (torch.Tensor): RGB images ``(B, 3, H, W)`` in [0, 1].

        Returns:
            torch.Tensor: Normalised images, channels last, same shape.
        """
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run all stages.

        Args:
            images (torch.Tensor): RGB images ``(B, 3, H, W)`` in [0, 1].

        Returns:
            list[torch.Tensor]: Feature maps ``(B, C_j, H_j, W_j)``, one a stage.
        """
        features, found = self.normalised(images), []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found


def _cut(tower: Any, encoder: str) -> nn.ModuleList:
    """Cut a backbone behind the module that ends each of its stages."""
    ends: list[str] = tower.feature_info.module_name()
    stages, modules = nn.ModuleList(), []
    for name, module in _chain(tower, ends):
        modules.append(module)
        if name == ends[len(stages)]:
            stages.append(nn.Sequential(*modules))
            modules = []
        if len(stages) == len(ends):
            return stages
    msg = NO_CHAIN.format(encoder)
    raise ValueError(msg)


def _chain(tower: nn.Module, ends: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a backbone in order; one that contains ends of stages is replaced by its own modules."""
    for name, module in tower.named_children():
        if any(end.startswith(f"{name}.") for end in ends):
            yield from ((f"{name}.{child}", part) for child, part in module.named_children())
        else:
            yield name, module


def _check(stages: nn.ModuleList, tower: Any, encoder: str, image_size: tuple[int, int]) -> None:
    """Run the stages and the backbone once: they must agree."""
    images = torch.rand(1, 3, *image_size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected = tower(images)
            features, found = images, []
            for stage in stages:
                features = stage(features)
                found.append(features)
    except (AssertionError, RuntimeError) as error:
        msg = f"{encoder!r} does not take images of size {image_size} ({error}). Change --model.image_size."
        raise ValueError(msg) from error
    pairs = zip(expected, found, strict=True)
    if not all(a.shape == b.shape and torch.allclose(b, a, rtol=1e-3, atol=1e-3) for a, b in pairs):
        msg = NO_CHAIN.format(encoder)
        raise ValueError(msg)
