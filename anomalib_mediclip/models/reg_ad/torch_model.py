# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""RegAD as a PyTorch module, in the order of the paper's section 3.

Training: images -> stages of a backbone, each followed by a spatial transformer -> Siamese encoder and predictor, which
shall give the same at every position of two images of one category.
Inference: the moved features are moved back, those of all stages are joined, and a Gaussian at each position, estimated
from views of the support images, gives the distance of a test image.

Paper: https://arxiv.org/abs/2207.07361
"""

import logging
from collections.abc import Sequence
from itertools import accumulate

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional

from anomalib_mediclip.encoders.staged_encoder import LearningStages, StagedEncoder
from anomalib_mediclip.models.components.feature_cache import progress_bar
from anomalib_mediclip.models.components.precision import full_precision
from anomalib_mediclip.models.reg_ad.anomaly_map import AnomalyMapGenerator
from anomalib_mediclip.models.reg_ad.gaussian import PositionGaussians
from anomalib_mediclip.models.reg_ad.loss import Registration
from anomalib_mediclip.models.reg_ad.siamese import SiameseEncoder, SiamesePredictor
from anomalib_mediclip.models.reg_ad.spatial_transformer import (
    SpatialTransformer,
    TransformMode,
    compose,
    invert,
    move,
    warp,
)
from anomalib_mediclip.models.reg_ad.views import fixed_views, make_views

logger = logging.getLogger(__name__)

LARGEST_MOVE = 0.5  # sides of the map; turning it by 45 degrees moves its corners that far
VIEWS = ("rotate", "translate", "flip", "grey", "rotate90")


class RegADModel(nn.Module):
    """Backbone with spatial transformers, Siamese head, Gaussians.

    Args:
        encoder (str, optional): Backbone of timm. Defaults to ``"timm/resnet18.tv_in1k"``.
        weights (str | None, optional): Initial weights: ``"pretrained"``, the path of a checkpoint, or ``None`` for
            random ones (tests). Defaults to ``"pretrained"``.
        layers (Sequence[int], optional): Stages whose features are used, 1-based, the stem of a ResNet being the
            first. Defaults to ``(2, 3, 4)``: layer1, layer2 and layer3 of a ResNet.
        image_size (tuple[int, int], optional): Height and width of the input in pixels. Defaults to ``(224, 224)``.
        transform (TransformMode | None, optional): What the spatial transformers may change; None for a model without
            transformers and head, which does not learn. Defaults to ``"rotation_scale"``.
        train_backbone (bool, optional): Whether the backbone learns too. Defaults to ``True``.
        views (Sequence[str], optional): Kinds of views of the support images. Defaults to all five.
        ridge (float, optional): What is added to the variances. Defaults to ``0.01``.
        statistics_stride (int, optional): Pixels from one position of the Gaussians to the next: the stride of the
            first of ``layers``, or twice that, for which it is averaged over 2 x 2 positions. Defaults to ``4``.
        normalise (bool, optional): Whether images are normalised as the backbone expects. Defaults to ``True``.
        seed (int, optional): Seed of random weights. Defaults to ``0``.

    Raises:
        ValueError: If an option does not exist.
        RuntimeError: If the weights cannot be downloaded.

    Example:
        >>> model = RegADModel("timm/resnet18", None, image_size=(64, 64), views=["flip"]).eval()
        >>> with torch.no_grad():
        ...     model.fit(torch.rand(4, 3, 64, 64), seed=0)
        ...     predictions = model(torch.rand(1, 3, 64, 64))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([1, 1, 64, 64]), torch.Size([1]))
    """

    nearest: torch.Tensor  # (stages, P): position in each map that is nearest to a position of the grid

    def __init__(
        self,
        encoder: str = "timm/resnet18.tv_in1k",
        weights: str | None = "pretrained",
        layers: Sequence[int] = (2, 3, 4),
        image_size: tuple[int, int] = (224, 224),
        transform: TransformMode | None = "rotation_scale",
        train_backbone: bool = True,
        views: Sequence[str] = VIEWS,
        ridge: float = 0.01,
        statistics_stride: int = 4,
        normalise: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(layers, ridge)
        self.views, self.ridge, self.layers = fixed_views(views), ridge, list(layers)
        learning: LearningStages = "all" if train_backbone and transform else 0
        self.encoder = StagedEncoder(encoder, weights, self.layers[-1], image_size, learning, normalise, seed)
        sizes = _sizes(self.encoder, self.layers, image_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.transformers, self.head = nn.ModuleList(), nn.ModuleDict()
            if transform:
                channels = [self.encoder.channels[layer - 1] for layer in self.layers]
                maps = zip(channels, sizes, strict=True)
                self.transformers.extend(SpatialTransformer(width, size, transform) for width, size in maps)
                self.head["encoder"] = SiameseEncoder(channels[-1])
                self.head["predictor"] = SiamesePredictor(channels[-1])
        self.pooling = _pooling(sizes[0], image_size, statistics_stride)
        self.grid = sizes[0][0] // self.pooling, sizes[0][1] // self.pooling
        nearest = torch.stack([_nearest(size, self.grid) for size in (self.grid, *sizes[1:])])
        self.register_buffer("nearest", nearest, persistent=False)
        self.statistics = PositionGaussians()
        self.seen: list[torch.Tensor] = []  # features of all views of the support images, stage by stage
        self._left_out: dict[int, PositionGaussians] = {}
        self.anomaly_map_generator = AnomalyMapGenerator()

    # -- training ------------------------------------------------------------------------------------------------------

    def register(self, queries: torch.Tensor, supports: torch.Tensor) -> Registration:
        """Compute what shall agree between queries and their supports (paper, section 3.2).

        Args:
            queries (torch.Tensor): Images ``(B, 3, H, W)`` in [0, 1].
            supports (torch.Tensor): ``(B, K, 3, H, W)``: K other images of the same category for each query.

        Returns:
            Registration: Input of the loss, on maps of the size of the last stage.
        """
        number = supports.shape[1]
        query = self._stages(queries)[0][-1]
        support = self._stages(supports.flatten(0, 1))[0][-1].unflatten(0, (-1, number)).mean(dim=1)
        z_query, z_support = self.head["encoder"](query), self.head["encoder"](support)
        return Registration(z_query, self.head["predictor"](z_query), z_support, self.head["predictor"](z_support))

    def _stages(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the moved maps of ``layers``, and the transformations that moved them, if there are any."""
        features = self.encoder.normalised(images)
        found: list[torch.Tensor] = []
        matrices: list[torch.Tensor] = []
        for number, stage in enumerate(self.encoder.stages, start=1):
            features = stage(features)
            if number not in self.layers:
                continue
            if self.transformers:
                features, matrix = self.transformers[len(found)](features)
                matrices.append(matrix)
            found.append(features)
        return found, matrices

    # -- inference -----------------------------------------------------------------------------------------------------

    def forward(self, images: torch.Tensor, own: torch.Tensor | None = None) -> InferenceBatch:
        """Compute distances; always in float32.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.
            own (torch.Tensor | None, optional): Number ``(B,)`` of the support image that each image is or was painted
                on, -1 for none; such an image is compared with Gaussians of the other support images. Where there are
                none, or the features of the views are not there any more, it is compared with all.
                Defaults to ``None``: none is.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score ``(B,)``, both distances.

        Raises:
            RuntimeError: If there are no Gaussians yet.
        """
        if not self.statistics.nbytes:
            msg = "There are no Gaussians of normal images: train the model or load a checkpoint before it predicts."
            raise RuntimeError(msg)
        with full_precision(images.device.type):
            vectors = self._joined(self.maps(images))
            distances = self.statistics(vectors) if own is None else self._distances_without(vectors, own)
        return self.anomaly_map_generator(distances.unflatten(1, (1, *self.grid)), images.shape[-2:])

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the features that are compared: those of all stages, moved back (paper, section 3.3).

        A map was moved by its own transformer and those before it. The official code moves it back by the inverse of
        each, one after the other; here their product is inverted, and the map is resampled once.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            list[torch.Tensor]: Feature maps ``(B, C_j, h_j, w_j)``, the first at the size of the Gaussians' grid.
        """
        return self._moved_back(*self._stages(images))

    def _moved_back(self, found: list[torch.Tensor], matrices: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return maps as if nothing had moved them, the first at the size of the Gaussians' grid."""
        found = found.copy()
        for number, total in enumerate(accumulate(matrices, compose)):
            found[number] = warp(found[number], invert(total))
        return [functional.avg_pool2d(found[0], self.pooling) if self.pooling > 1 else found[0], *found[1:]]

    def _joined(self, maps: list[torch.Tensor], positions: slice = slice(None)) -> torch.Tensor:
        """Return the vectors ``(B, C, p)`` at some positions of the grid, from the nearest position in each map."""
        nearest = zip(maps, self.nearest, strict=True)
        return torch.cat([features.flatten(2)[:, :, index[positions]] for features, index in nearest], dim=1)

    def fit(self, images: torch.Tensor, seed: int, title: str | None = None) -> None:
        """Estimate the Gaussians from all views of the support images (paper, section 3.3).

        Args:
            images (torch.Tensor): Support images ``(k, 3, H, W)`` in [0, 1].
            seed (int): Not used: nothing is drawn.
            title (str | None, optional): Title of a progress bar. Defaults to ``None``: no bar.

        Raises:
            FloatingPointError: If features are not finite.
        """
        del seed
        found, largest_move = [], 0.0
        with progress_bar(title, len(images)) as progress:
            for image in images:
                views = make_views(image.expand(len(self.views), -1, -1, -1), self.views)
                moved, matrices = self._stages(views)
                found.append(self._moved_back(moved, matrices))
                largest_move = max([largest_move, *(move(matrix[0]) for matrix in matrices)])
                progress.update()
        if largest_move > LARGEST_MOVE:
            logger.warning(
                "The spatial transformers move features of the support images by %.2g of a side, and what they move "
                "out of the map is lost. Train with a lower --model.learning_rate, or fewer --trainer.max_steps.",
                largest_move,
            )
        self.seen, self._left_out = [torch.cat(stage) for stage in zip(*found, strict=True)], {}
        if not all(features.isfinite().all() for features in self.seen):
            msg = (
                "The features of the support images are not finite. Train with a lower --model.learning_rate, and with "
                "--trainer.precision 32."
            )
            raise FloatingPointError(msg)
        self._estimate(self.statistics, self.seen, title)

    def _estimate(self, gaussians: PositionGaussians, maps: list[torch.Tensor], title: str | None = None) -> None:
        """Estimate Gaussians from the maps of all stages of some views."""
        positions = self.nearest.shape[1]
        gaussians.fit(lambda here: self._joined(maps, here).permute(2, 0, 1), positions, self.ridge, title)

    def _distances_without(self, vectors: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return distances ``(B, P)`` from Gaussians that do not know the support image of each row."""
        distances = torch.empty_like(vectors[:, 0])
        for number in own.unique().tolist():
            distances[own == number] = self._without(number)(vectors[own == number])
        return distances

    def _without(self, number: int) -> PositionGaussians:
        """Return the Gaussians without a support image; the last ones are kept, as images come one after another."""
        image_of_view = torch.arange(len(self.seen[0]) if self.seen else 0) // len(self.views)
        others = image_of_view != number
        if others.all() or not others.any():
            return self.statistics
        if number not in self._left_out:
            gaussians = PositionGaussians()
            self._estimate(gaussians, [features[others] for features in self.seen])
            self._left_out = {number: gaussians}
        return self._left_out[number]

    def forget_views(self) -> None:
        """Free what only the validation of support images needs."""
        self.seen, self._left_out = [], {}


def _sizes(encoder: StagedEncoder, layers: list[int], image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return height and width of the maps of some stages."""
    with torch.no_grad():
        found = encoder.eval()(torch.zeros(1, 3, *image_size))
    return [(found[layer - 1].shape[2], found[layer - 1].shape[3]) for layer in layers]


def _nearest(size: tuple[int, int], grid: tuple[int, int]) -> torch.Tensor:
    """Return the numbers ``(P,)`` of the positions of a map that are nearest to those of the grid."""
    rows, columns = (torch.arange(to) * of // to for of, to in zip(size, grid, strict=True))
    return (rows[:, None] * size[1] + columns).flatten()


def _pooling(size: tuple[int, int], image_size: tuple[int, int], stride: int) -> int:
    """Return over how many positions along each side the finest map is averaged."""
    finest = round(image_size[0] / size[0])
    if stride not in (finest, 2 * finest):
        msg = (
            f"statistics_stride={stride}: the first of --model.layers has a stride of {finest} pixels; "
            f"use {finest} or {2 * finest}."
        )
        raise ValueError(msg)
    if stride != finest and (size[0] % 2 or size[1] % 2):
        msg = (
            f"statistics_stride={stride}: a map of {size[0]} x {size[1]} positions cannot be averaged over 2 x 2. "
            f"Use sides of --model.image_size that are multiples of {stride}, or --model.statistics_stride {finest}."
        )
        raise ValueError(msg)
    return stride // finest


def _check(layers: Sequence[int], ridge: float) -> None:
    """Refuse options without meaning."""
    if not layers or sorted(set(layers)) != list(layers) or layers[0] < 1:
        msg = f"layers={list(layers)}: name one or more stages from 1 upwards, in rising order."
        raise ValueError(msg)
    if ridge <= 0:
        msg = f"ridge={ridge}: it must be positive (0.01 in the paper), or covariances are singular."
        raise ValueError(msg)
