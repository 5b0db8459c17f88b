# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patch SVDD as a PyTorch module, in the order of the paper's section 3.

Patches of 32 and 64 pixels -> hierarchical encoder -> embeddings. In training a classifier tells directions from them.
At inference the distance to the nearest embedding of a normal patch is the score of a patch.

Paper: https://arxiv.org/abs/2006.16067
"""

from typing import Literal

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_mediclip.models.components.feature_cache import progress_bar
from anomalib_mediclip.models.components.precision import full_precision
from anomalib_mediclip.models.patch_svdd.anomaly_map import AnomalyMapGenerator, Combination, spread
from anomalib_mediclip.models.patch_svdd.memory_bank import Grid, MemoryBank
from anomalib_mediclip.models.patch_svdd.networks import (
    LARGE,
    SMALL,
    DirectionClassifier,
    LargePatchEncoder,
    SmallPatchEncoder,
)

Subtracted = Literal["mean_colour", "mean_image"]
IMAGES_AT_ONCE = 2  # on a CPU; the feature maps of more do not fit into its caches


class PatchSVDDModel(nn.Module):
    """Hierarchical encoder, direction classifiers, memory bank.

    Args:
        image_size (tuple[int, int], optional): Height and width of the images in pixels. Defaults to ``(224, 224)``.
        embedding_dim (int, optional): Width of the embeddings. Defaults to ``64``.
        strides (tuple[int, int], optional): Distance in pixels of neighbouring patches of 64 and of 32 pixels at
            inference. Defaults to ``(16, 4)``.
        fixed_readout (bool, optional): Whether the last layers of the classifiers stay random, as in the official code.
            Defaults to ``False``.
        subtract (Subtracted, optional): What is subtracted from images: ``"mean_colour"`` or ``"mean_image"`` of the
            support set. Defaults to ``"mean_colour"``.
        combine (Combination, optional): How the maps of both sizes are combined. Defaults to ``"product"``.
        seed (int, optional): Seed of the initial weights. Defaults to ``0``.

    Raises:
        ValueError: If an option does not exist, or patches do not cover images of this size.

    Example:
        >>> import torch
        >>> model = PatchSVDDModel(image_size=(96, 128), strides=(32, 16)).eval()
        >>> with torch.no_grad():
        ...     model.fit(torch.rand(2, 3, 96, 128), seed=0)
        ...     predictions = model(torch.rand(1, 3, 96, 128))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([1, 1, 96, 128]), torch.Size([1]))
    """

    mean: torch.Tensor

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        embedding_dim: int = 64,
        strides: tuple[int, int] = (16, 4),
        fixed_readout: bool = False,
        subtract: Subtracted = "mean_colour",
        combine: Combination = "product",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_grid(image_size, strides)
        if subtract not in ("mean_colour", "mean_image"):
            msg = f"subtract={subtract!r}: use mean_colour or mean_image."
            raise ValueError(msg)
        self.strides = (strides[0], strides[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.small_encoder = SmallPatchEncoder(embedding_dim).to(memory_format=torch.channels_last)
            self.large_encoder = LargePatchEncoder(embedding_dim)
            self.large_classifier = DirectionClassifier(embedding_dim, fixed_readout)
            self.small_classifier = DirectionClassifier(embedding_dim, fixed_readout)
        self.register_buffer("mean", torch.zeros(3, *((1, 1) if subtract == "mean_colour" else image_size)))
        self.statistics = MemoryBank()
        self.anomaly_map_generator = AnomalyMapGenerator(combine)

    def forward(self, images: torch.Tensor, own: torch.Tensor | None = None) -> InferenceBatch:
        """Score images (paper, section 3.4).

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.
            own (torch.Tensor | None, optional): Number ``(B,)`` of the support image that each image is or was painted
                on, -1 for none; its patches do not count. Defaults to ``None``: none is.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both distances.

        Raises:
            RuntimeError: If the memory bank is empty.
        """
        if not self.statistics.nbytes:
            msg = "The memory bank is empty: train the model or load a checkpoint before it predicts."
            raise RuntimeError(msg)
        with full_precision(images.device.type):
            embeddings = self.embed_images(images)
            sides = (LARGE, SMALL)
            grids = [Grid(side, s, *e.shape[2:]) for side, s, e in zip(sides, self.strides, embeddings, strict=True)]
            distances = self.statistics.distances(*embeddings, (grids[0], grids[1]), own)
            maps = (spread(d, side, s) for d, side, s in zip(distances, sides, self.strides, strict=True))
            predictions: InferenceBatch = self.anomaly_map_generator(*maps)
        return predictions

    def embed_images(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed all patches of images at the strides of inference, by convolution over whole images.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Embeddings ``(B, D, h, w)`` of the patches of 64 pixels, and
            ``(B, D, h', w')`` of those of 32 pixels.
        """
        centred, (large_stride, stride) = images - self.mean, self.strides
        if torch.compiler.is_compiling() or images.device.type != "cpu":
            small = self.small_encoder(centred, stride)
        else:
            small = torch.cat([self.small_encoder(part, stride) for part in centred.split(IMAGES_AT_ONCE)])
        return self.large_encoder(small, dilation=SMALL // stride, stride=large_stride // stride), small

    def embed_patches(self, large: torch.Tensor, small: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed patches of training, all of them in one pass: nothing depends on the other patches of a batch.

        Args:
            large (torch.Tensor): Patches ``(N, 3, 64, 64)``, the mean subtracted.
            small (torch.Tensor): Patches ``(M, 3, 32, 32)``, the mean subtracted.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Embeddings ``(N, D)`` and ``(M, D)``.
        """
        quadrants = large.unflatten(2, (2, SMALL)).unflatten(4, (2, SMALL)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        together = torch.cat([quadrants, small]).contiguous(memory_format=torch.channels_last)
        embedded = self.small_encoder(together)
        of_quadrants = embedded[: len(quadrants)].unflatten(0, (-1, 2, 2)).movedim(3, 1).flatten(3)
        return self.large_encoder(of_quadrants).flatten(1), embedded[len(quadrants) :].flatten(1)

    def take_mean(self, images: torch.Tensor) -> None:
        """Take the mean of support images, which is subtracted from all images.

        Args:
            images (torch.Tensor): Support images ``(k, 3, H, W)`` in [0, 1].
        """
        dimensions = (0, 2, 3) if self.mean.shape[-2:] == (1, 1) else (0,)
        self.mean.copy_(images.mean(dim=dimensions).view_as(self.mean))

    def fit(self, images: torch.Tensor, seed: int, title: str | None = None) -> None:
        """Remember all patches of the support set.

        Args:
            images (torch.Tensor): Support images ``(k, 3, H, W)`` in [0, 1].
            seed (int): Not used: nothing is drawn.
            title (str | None, optional): Title of a progress bar. Defaults to ``None``: no bar.
        """
        del seed
        self.take_mean(images)  # again: a callback may have averaged it with that of the untrained model
        embeddings = []
        with progress_bar(title, len(images)) as progress:
            for image in images:
                embeddings.append(self.embed_images(image[None]))
                progress.update()
        large, small = zip(*embeddings, strict=True)
        self.statistics.remember(torch.cat(large), torch.cat(small))


def check_grid(image_size: tuple[int, int], strides: tuple[int, int]) -> None:
    """Refuse sizes at which patches leave a strip of the image out.

    Args:
        image_size (tuple[int, int]): Height and width in pixels.
        strides (tuple[int, int]): Distances of patches of 64 and of 32 pixels.

    Raises:
        ValueError: If patches do not cover the image; names the sizes that come next.
    """
    large, small = strides
    if small < 2 or small % 2 or SMALL % small or large % small or large < small:
        msg = (
            f"strides={strides}: the second must be 2, 4, 8, 16 or 32, and the first a multiple of it: patches of 64 "
            "pixels are made of four of 32."
        )
        raise ValueError(msg)
    if any((side - LARGE) % large or side < LARGE for side in image_size):
        fitting = [(max(0, side - LARGE) // large) * large + LARGE for side in image_size]
        msg = (
            f"image_size={tuple(image_size)}: patches of 64 pixels, {large} pixels apart, do not cover it. Use "
            f"{tuple(fitting)} or {tuple(side + large for side in fitting)}, or other --model.strides."
        )
        raise ValueError(msg)
