# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SQUID as a PyTorch module, in the order of the paper's section 3.

Image -> 2 x 2 patches -> encoder -> in-painting of each patch's features from what the memory holds of normal images at
its place and around -> student decoder -> reconstruction -> discriminator -> score. In training a teacher decoder gets
the encoder's own features.

Paper: https://arxiv.org/abs/2111.13495
"""

import math
from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_mediclip.models.components.feature_cache import progress_bar
from anomalib_mediclip.models.components.grey_views import MoveRanges, draw_views, to_grey
from anomalib_mediclip.models.components.precision import full_precision
from anomalib_mediclip.models.squid.anomaly_map import AnomalyMapGenerator, SupportScale
from anomalib_mediclip.models.squid.discriminator import Discriminator
from anomalib_mediclip.models.squid.inpainting import InpaintingBlock
from anomalib_mediclip.models.squid.memory import DecoderMemory
from anomalib_mediclip.models.squid.networks import Decoder, Encoder, split
from anomalib_mediclip.seeds import generator_of

UNIT = 32  # sides of images are multiples of it: 2 patches, and 4 levels that halve them
LEAST_SIDE = 64  # pixels; at 32 the discriminator would normalise single positions
MOVES = MoveRanges(vertical=0.05, horizontal=0.05, scale=0.05)  # no rotation, no flip: places would be confused
PASSES = 64  # of support images, from which the scale of scores and maps is taken


class Generated(NamedTuple):
    """What the generator makes of images in training.

    Attributes:
        student (torch.Tensor): The student's grey images ``(B, 1, H, W)`` in [0, 1].
        teacher (torch.Tensor): The teacher's, same shape and range.
        student_levels (list[torch.Tensor]): Features of the four levels of the student's decoder.
        teacher_levels (list[torch.Tensor]): Those of the teacher's, same shapes.
        queries (torch.Tensor): Queries ``(B, 4, D)`` to the memory queues.
    """

    student: torch.Tensor
    teacher: torch.Tensor
    student_levels: list[torch.Tensor]
    teacher_levels: list[torch.Tensor]
    queries: torch.Tensor


class SQUIDModel(nn.Module):
    """Encoder, in-painting block, student and teacher decoder, discriminator.

    Args:
        image_size (tuple[int, int], optional): Height and width of the images in pixels, multiples of 32.
            Defaults to ``(128, 128)``.
        width (int, optional): Channels F of the first block of the encoder. Defaults to ``32``.
        slots (int, optional): Slots of each memory. Defaults to ``200``.
        top_k (int, optional): Slots that a query is answered with. Defaults to ``4``.
        shortcut (float, optional): Share of the positions at which features are replaced by what the memories hold, in
            training. Defaults to ``0.95``.
        seed (int, optional): Seed of the initial weights. Defaults to ``0``.

    Raises:
        ValueError: If the images have another size.

    Example:
        >>> import torch
        >>> model = SQUIDModel(image_size=(64, 96), width=4, slots=10).eval()
        >>> with torch.no_grad():
        ...     model.fit(torch.rand(2, 3, 64, 96), seed=0)
        ...     predictions = model(torch.rand(1, 3, 64, 96))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([1, 1, 64, 96]), torch.Size([1]))
    """

    teacher: nn.Module  # exports leave it out

    def __init__(
        self,
        image_size: tuple[int, int] = (128, 128),
        width: int = 32,
        slots: int = 200,
        top_k: int = 4,
        shortcut: float = 0.95,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_image_size(image_size)
        height, columns = image_size[0] // UNIT, image_size[1] // UNIT  # of a patch's features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(width)
            self.inpainting = InpaintingBlock(16 * width, (height, columns), slots, top_k, shortcut)
            memories = [
                DecoderMemory(8 * width, (2 * height, 2 * columns), slots, top_k, shortcut),
                DecoderMemory(4 * width, (4 * height, 4 * columns), slots, top_k, shortcut),
            ]
            self.student = Decoder(width, memories)
            self.teacher = Decoder(width)
            self.discriminator = Discriminator(image_size)
        for part in (self.encoder, self.student, self.teacher):  # a fifth of the time of a step on a CPU
            part.to(memory_format=torch.channels_last)
        self.statistics = SupportScale()
        self.anomaly_map_generator = AnomalyMapGenerator()

    def forward(self, images: torch.Tensor, own: torch.Tensor | None = None) -> InferenceBatch:
        """Score images.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.
            own (torch.Tensor | None, optional): Not used. The statistics of the support set are four numbers over many
                views, among which no image can be left out or found again. Defaults to ``None``.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both unbounded.

        Raises:
            RuntimeError: If there are no statistics yet.
        """
        del own
        if not self.statistics.nbytes:
            msg = "There is no scale of normal images: train the model or load a checkpoint before it predicts."
            raise RuntimeError(msg)
        realness, errors = self.measure(to_grey(images))
        predictions: InferenceBatch = self.anomaly_map_generator(realness, errors, self.statistics)
        return predictions

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the student makes of images.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            torch.Tensor: Grey images ``(B, 1, H, W)`` in [0, 1].
        """
        return self.imitate(to_grey(images))

    def measure(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruct images, and measure the realness of that and its errors.

        Args:
            images (torch.Tensor): Grey images ``(B, 1, H, W)`` in [0, 1].

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Realness ``(B,)``, a logit, and smoothed errors ``(B, 1, H, W)``.
        """
        with full_precision(images.device.type):
            reconstructions = self.imitate(images)
            realness: torch.Tensor = self.discriminator(reconstructions)
            return realness, self.anomaly_map_generator.smoothed_error(images, reconstructions)

    def imitate(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return what the student makes of grey images; the teacher takes no part.

        Args:
            images (torch.Tensor): Grey images ``(B, 1, H, W)`` in [0, 1].
            generator (torch.Generator | None, optional): Source of the shortcuts' positions, on the CPU, in training.
                Defaults to ``None``: no shortcuts.

        Returns:
            torch.Tensor: Grey images, same shape and range.
        """
        features, skips = self.encoder(split(images))
        inpainted, _ = self.inpainting(features, generator)
        student: torch.Tensor = self.student(inpainted, skips, generator)[0]
        return student

    def generate(self, images: torch.Tensor, generator: torch.Generator | None = None) -> Generated:
        """Let student and teacher decode images, for the training of the generator.

        The teacher's input is detached, as in the official code: it does not train the encoder.

        Args:
            images (torch.Tensor): Grey images ``(B, 1, H, W)`` in [0, 1].
            generator (torch.Generator | None, optional): Source of the shortcuts' positions, on the CPU.
                Defaults to ``None``: no shortcuts.

        Returns:
            Generated: What both made, and what the losses and the queues need.
        """
        features, skips = self.encoder(split(images))
        inpainted, queries = self.inpainting(features, generator)
        student, student_levels = self.student(inpainted, skips, generator)
        teacher, teacher_levels = self.teacher(features.detach(), [skip.detach() for skip in skips])
        return Generated(student, teacher, student_levels, teacher_levels, queries)

    def fit(self, images: torch.Tensor, seed: int, title: str | None = None) -> None:
        """Take the scale of scores and maps from the support set: each image as it is, and in moved views.

        Args:
            images (torch.Tensor): Support images ``(k, 3, H, W)`` in [0, 1].
            seed (int): Seed of the views.
            title (str | None, optional): Title of a progress bar. Defaults to ``None``: no bar.
        """
        moved = max(1, math.ceil(PASSES / len(images)) - 1)  # views of each image
        realness, errors = [], []
        with progress_bar(title, len(images)) as progress:
            for number, image in enumerate(to_grey(images)[:, None]):
                views = draw_views(image, moved, MOVES, generator_of(seed, number))
                of_image = self.measure(torch.cat([image, views]))
                realness.append(of_image[0])
                errors.append(of_image[1])
                progress.update()
        self.statistics.take(torch.cat(realness), torch.cat(errors))


def check_image_size(image_size: tuple[int, int]) -> None:
    """Refuse sizes that cannot be halved as often as the networks do.

    Args:
        image_size (tuple[int, int]): Height and width in pixels.

    Raises:
        ValueError: If a side is no multiple of 32, or less than 64; names the sizes that come next.
    """
    if any(side % UNIT or side < LEAST_SIDE for side in image_size):
        smaller = tuple(max(LEAST_SIDE, side // UNIT * UNIT) for side in image_size)
        larger = tuple(max(LEAST_SIDE, -(-side // UNIT) * UNIT) for side in image_size)
        fitting = f"{smaller} or {larger}" if smaller != larger else f"{smaller}"
        msg = (
            f"image_size={tuple(image_size)}: both sides must be multiples of {UNIT}, and at least {LEAST_SIDE}, "
            f"because 2 x 2 patches are halved four times. Use {fitting}."
        )
        raise ValueError(msg)
