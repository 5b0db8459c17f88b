# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Antialiased resizing that can be exported.

Bilinear resizing is linear and separable: an image is multiplied by one matrix for its rows and one for its columns.
Their weights are computed in the graph, from the shape of the image. The operators of ONNX and OpenVINO for resizing
have no antialiasing that the exporter could use, and without it the scores of large images drift.
"""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
from torch import nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Resize, Transform

from anomalib_mediclip.io.array import check_images


class AntialiasedResize(nn.Module):
    """Bilinear resizing with antialiasing, as torchvision's ``Resize(size, antialias=True)`` on floats.

    Args:
        size (Sequence[int]): Height and width of the result in pixels.

    Example:
        >>> images = torch.rand(1, 3, 300, 500)
        >>> expected = Resize((224, 224), antialias=True)(images)
        >>> torch.allclose(AntialiasedResize((224, 224))(images), expected, atol=1e-4)
        True
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize a batch.

        Args:
            images (torch.Tensor): Float images of shape ``(B, C, H, W)``.

        Returns:
            torch.Tensor: Images of shape ``(B, C, *size)``.
        """
        rows, columns = (
            resize_matrix(torch.arange(length, device=images.device), side).to(images.dtype)
            for length, side in zip(images.shape[-2:], self.size, strict=True)
        )
        return rows @ images @ columns.T


def resize_matrix(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Return the matrix that resizes one side of an image.

    Each pixel of the result is a mean of the image's pixels, weighted by a triangle whose half width is one pixel of
    the result or of the image, whichever is larger.

    Args:
        positions (torch.Tensor): Positions 0, 1, ... of the image's pixels, shape ``(L,)``, whole numbers.
        size (int): Number of pixels of the result.

    Returns:
        torch.Tensor: Weights of shape ``(size, L)``; every row adds up to 1.

    Example:
        >>> resize_matrix(torch.arange(4), 2)
        tensor([[0.4286, 0.4286, 0.1429, 0.0000],
                [0.0000, 0.1429, 0.4286, 0.4286]])
    """
    # In whole numbers, distances in units of 1 / (2 size) of the image's pixels: a runtime that computes in bfloat16,
    # as OpenVINO does by itself where the CPU has it, would round positions above 128 to whole pixels and more.
    length = positions.amax(dim=0) + 1  # a tensor, not a number: the graph computes it for every image
    centres = (2 * torch.arange(size, device=positions.device) + 1) * length
    distances = ((2 * positions + 1) * size - centres[:, None]).abs()
    weights = (2 * length.clamp(min=size) - distances).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def exportable(transform: Transform | None) -> nn.Module | None:
    """Return what an exported graph does in place of a pre-processor's transform.

    Bilinear antialiased resizing to a fixed size stays what it is. Everything else becomes what anomalib exports, which
    for other kinds of resizing has no antialiasing.

    Args:
        transform (Transform | None): Transform of a pre-processor.

    Returns:
        nn.Module | None: Its counterpart; None stays None.

    Example:
        >>> exportable(Resize((224, 224), antialias=True))
        AntialiasedResize()
    """
    if isinstance(transform, Compose):
        return Compose([exportable(part) for part in transform.transforms])
    if isinstance(transform, Resize) and _is_linear(transform):
        return AntialiasedResize(transform.size)
    return get_exportable_transform(transform)


class ExportablePreProcessor(PreProcessor):
    """anomalib's pre-processor, which also resizes with antialiasing where a model takes plain tensors: in exports.

    Args:
        transform (Transform | None, optional): Transform of the images. Defaults to ``None``.

    Example:
        >>> ExportablePreProcessor(Resize((224, 224), antialias=True))(torch.rand(2, 3, 300, 500)).shape
        torch.Size([2, 3, 224, 224])
    """

    def __init__(self, transform: Transform | None = None) -> None:
        super().__init__(transform)
        self.export_transform = exportable(transform)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Check and resize what a model is called with. Exported graphs leave out the check.

        Args:
            batch (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            torch.Tensor: Transformed images.

        Raises:
            TypeError: If the images are not floating-point numbers.
            ValueError: If shape, channels, range or size are wrong.
        """
        if not torch.compiler.is_compiling():
            check_images(batch)
        return super().forward(batch)

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what :meth:`checkpoint_config` returned."""
        super().load_checkpoint_config(config)
        self.export_transform = exportable(self.transform)


def transform_of(pre_processor: nn.Module | None) -> Transform | None:
    """Return the transform of a pre-processor.

    Args:
        pre_processor (nn.Module | None): Pre-processor of a model.

    Returns:
        Transform | None: Transform; None where the pre-processor has none, or is not one of anomalib.
    """
    return pre_processor.transform if isinstance(pre_processor, PreProcessor) else None


def _is_linear(resize: Resize) -> bool:
    """Tell whether it is bilinear and antialiased, to a height and a width."""
    both_sides = resize.size is not None and len(resize.size) == 2
    # torchvision hands on whatever it was given, and its default is a string in some versions
    bilinear = resize.interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BILINEAR.value)
    return both_sides and bool(resize.antialias) and bilinear
