# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CutPaste as a PyTorch module, in the order of the paper's section 2.

Stage 1: images, and the same images with something pasted -> backbone -> pooled features -> head -> which is which.
Stage 2: the head is dropped; a density of the pooled features of normal images gives the distance of an image.

Paper: https://arxiv.org/abs/2104.04015
"""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_mediclip.encoders.staged_encoder import LearningStages, StagedEncoder
from anomalib_mediclip.models.components.feature_cache import progress_bar
from anomalib_mediclip.models.components.precision import full_precision
from anomalib_mediclip.models.cut_paste.anomaly_map import AnomalyMapGenerator, grad_cam
from anomalib_mediclip.models.cut_paste.density import DensityType, make_density, unit_features
from anomalib_mediclip.models.cut_paste.pasting import augment
from anomalib_mediclip.seeds import generator_of


class CutPasteModel(nn.Module):
    """Backbone that learns, head, density.

    Args:
        encoder (str, optional): Backbone of timm. Defaults to ``"timm/resnet18.tv_in1k"``.
        weights (str | None, optional): Initial weights: ``"pretrained"``, the path of a checkpoint, or ``None`` for
            random ones. Defaults to ``None``.
        layer (int, optional): Stage whose feature map is pooled, 1-based, the stem of a ResNet being the first.
            Defaults to ``5``.
        image_size (tuple[int, int], optional): Height and width of the input in pixels. Defaults to ``(224, 224)``.
        classes (int, optional): Kinds of images that the head tells apart. Defaults to ``3``.
        head (Sequence[int], optional): Widths of the hidden layers of the head. Defaults to ``(512, 128)``.
        train_stages (LearningStages, optional): ``"all"``, or how many of the last stages learn. Defaults to
            ``"all"``.
        density (DensityType, optional): ``"gaussian"`` or ``"kde"``. Defaults to ``"gaussian"``.
        views (int, optional): How many views of each support image the density sees. Defaults to ``32``.
        jitter (float, optional): Largest change of brightness, contrast, saturation and hue in a view.
            Defaults to ``0.1``.
        translation (float, optional): Largest shift in a view, as a share of each side. Defaults to ``0.04``.
        seed (int, optional): Seed of random weights. Defaults to ``0``.

    Raises:
        ValueError: If an option does not exist.
        RuntimeError: If the weights cannot be downloaded.

    Example:
        >>> import torch
        >>> model = CutPasteModel("timm/resnet18", image_size=(64, 64), views=2).eval()
        >>> with torch.no_grad():
        ...     model.fit(torch.rand(4, 3, 64, 64), seed=0)
        ...     predictions = model(torch.rand(1, 3, 64, 64))
        >>> predictions.anomaly_map.shape, predictions.pred_score.shape
        (torch.Size([1, 1, 64, 64]), torch.Size([1]))
    """

    def __init__(
        self,
        encoder: str = "timm/resnet18.tv_in1k",
        weights: str | None = None,
        layer: int = 5,
        image_size: tuple[int, int] = (224, 224),
        classes: int = 3,
        head: Sequence[int] = (512, 128),
        train_stages: LearningStages = "all",
        density: DensityType = "gaussian",
        views: int = 32,
        jitter: float = 0.1,
        translation: float = 0.04,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.views, self.jitter, self.translation, self.density = views, jitter, translation, density
        self.encoder = StagedEncoder(encoder, weights, layer, image_size, train_stages, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = Head(self.encoder.channels[-1], head, classes)
        self.statistics = make_density(density)
        self.held_out: list[nn.Module] = []
        self.anomaly_map_generator = AnomalyMapGenerator()

    def forward(self, images: torch.Tensor, own: torch.Tensor | None = None) -> torch.Tensor | InferenceBatch:
        """Tell kinds of images apart in training, compute distances otherwise.

        Args:
            images (torch.Tensor): RGB images in [0, 1] of shape ``(B, 3, H, W)``.
            own (torch.Tensor | None, optional): Number ``(B,)`` of the support image that each image is or was painted
                on, -1 for none; such an image is compared with a density of the others. Defaults to ``None``: none is.

        Returns:
            torch.Tensor | InferenceBatch: In training logits ``(B, classes)``; otherwise anomaly map ``(B, 1, H, W)``
            and image score ``(B,)``, both distances.

        Raises:
            RuntimeError: If there is no density yet.
        """
        if self.training:
            logits: torch.Tensor = self.head(self.encoder(images)[-1].mean(dim=(2, 3)))
            return logits
        if not self.statistics.nbytes:
            msg = "There is no density of normal images: train the model or load a checkpoint before it predicts."
            raise RuntimeError(msg)
        with full_precision(images.device.type):
            feature_map = self.encoder(images)[-1]
            unit, length = unit_features(feature_map)
            distance, gradient = self.statistics(unit) if own is None else self._held_out_distances(unit, own)
            contributions = grad_cam(feature_map, unit, length, gradient)
        predictions: InferenceBatch = self.anomaly_map_generator(distance, contributions, images.shape[-2:])
        return predictions

    def fit(self, images: torch.Tensor, seed: int, title: str | None = None) -> None:
        """Estimate the density of normal images (paper, section 2.4), and those without each of them.

        Args:
            images (torch.Tensor): Support images ``(k, 3, H, W)`` in [0, 1].
            seed (int): Seed of the views.
            title (str | None, optional): Title of a progress bar. Defaults to ``None``: no bar.
        """
        features = []
        with progress_bar(title, len(images)) as progress:
            for number, image in enumerate(images):
                views = [image.cpu(), *(self._view(image.cpu(), seed, number, view) for view in range(1, self.views))]
                features.append(unit_features(self.encoder(torch.stack(views).to(images.device))[-1])[0])
                progress.update()
        self.statistics.fit(torch.cat(features))
        self.held_out = []
        for number in range(len(features) if len(features) > 1 else 0):
            density = make_density(self.density)
            density.fit(torch.cat(features[:number] + features[number + 1 :]))
            self.held_out.append(density)

    def _view(self, image: torch.Tensor, seed: int, number: int, view: int) -> torch.Tensor:
        """Return a view of a support image, in which nothing is pasted."""
        return augment(image, self.jitter, self.translation, generator_of(seed, number, view))

    def _held_out_distances(self, unit: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return distances and gradients; a support image is compared with the others, where there are others."""
        known = [number if 0 <= number < len(self.held_out) else None for number in own.tolist()]
        densities = [self.statistics if number is None else self.held_out[number] for number in known]
        distances, gradients = zip(*(d(unit[[row]]) for row, d in enumerate(densities)), strict=True)
        return torch.cat(distances), torch.cat(gradients)


class Head(nn.Sequential):
    """Perceptron on pooled features, with batch normalisation; the paper does not describe it.

    Args:
        width (int): Width of the features.
        hidden (Sequence[int]): Widths of the hidden layers.
        classes (int): Number of outputs.
    """

    def __init__(self, width: int, hidden: Sequence[int], classes: int) -> None:
        layers: list[nn.Module] = []
        for before, after in zip([width, *hidden], hidden, strict=False):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden[-1] if hidden else width, classes))
