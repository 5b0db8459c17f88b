# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patch SVDD as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2006.16067
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer

from anomalib_mediclip.evaluation.calibration import DistanceCalibrationPostProcessor
from anomalib_mediclip.models.components.fitted_module import FittedModule
from anomalib_mediclip.models.components.support_methods import in_range
from anomalib_mediclip.models.patch_svdd.anomaly_map import Combination
from anomalib_mediclip.models.patch_svdd.loss import PatchSVDDLoss
from anomalib_mediclip.models.patch_svdd.networks import LARGE, SMALL
from anomalib_mediclip.models.patch_svdd.pairs import Pairs, add_noise, cut, draw_close_pairs, draw_neighbours
from anomalib_mediclip.models.patch_svdd.torch_model import PatchSVDDModel, Subtracted

logger = logging.getLogger(__name__)

LEAST_SPREAD = 1e-3  # of embeddings, whose range is (-1, 1)


class PatchSVDD(FittedModule, AnomalibModule):
    """Patch SVDD: a small encoder learns from neighbouring patches, and the nearest normal patch gives the score.

    The defaults follow the paper and its official code. What differs or had to be decided, and why:

    * Neighbours lie inside the image (``keep_inside``). The official code moves patches that do not fit. With 224
      pixels one in eight of its larger pairs then lies in another direction than its label says.
    * The last layer of the classifiers learns. In the official code it is a fixed random readout, of which the bias
      alone learns (``fixed_readout``).
    * The mean colour of the support set is subtracted. The official code subtracts the mean image (``subtract:
      mean_image``), of which each of k images is 1/k, and which leaves ghosts where anatomy is not aligned.
    * ``svdd_weight`` is 1e-3, the author's advice for one class. The paper chooses it for each class and does not give
      the values; the official code has 1. A large one makes all embeddings equal; then a warning is logged.
    * Images are 224 x 224 like those of the other models, not 256 x 256.
    * Initial weights of the encoders are drawn as by He et al.; with those of the official code, torch's default, the
      embeddings of patches differ by 1e-4 at first.
    * Steps are fixed (7,500). In the official code their number grows with the number of images: 300 epochs of 100
      draws an image, which are as many steps at k = 16.
    * Nearest neighbours are exact for both patch sizes; the official code approximates those of the smaller one.
    * The paper multiplies the maps of both sizes and takes the maximum as the image's score, as here.

    Args:
        image_size (tuple[int, int], optional): Height and width in pixels to which images are resized.
            Defaults to ``(224, 224)``.
        embedding_dim (int, optional): Width of the embeddings. Defaults to ``64``.
        strides (Sequence[int], optional): Distance in pixels of neighbouring patches of 64 and of 32 pixels at
            inference. Smaller ones cost time. Defaults to ``(16, 4)``.
        svdd_weight (float, optional): Weight lambda of the distance of close patches in the loss.
            Defaults to ``1e-3``.
        pairs (int, optional): Pairs of each of four kinds a step: close ones and neighbours, of both patch sizes.
            Defaults to ``64``.
        keep_inside (bool, optional): Whether both patches of a pair lie where they were drawn; otherwise they are moved
            into the image. Defaults to ``True``.
        fixed_readout (bool, optional): Whether the last layers of the classifiers stay random. Defaults to ``False``.
        subtract (Subtracted, optional): What is subtracted from images: ``mean_colour`` or ``mean_image`` of the
            support set. Defaults to ``"mean_colour"``.
        combine (Combination, optional): How the maps of both patch sizes make one: ``product``, ``sum``, or one of
            them, ``large`` or ``small``. Defaults to ``"product"``.
        learning_rate (float, optional): Learning rate of Adam; 0 is the control of the method: nothing is trained, and
            the encoder stays random. Defaults to ``1e-4``.
        seed (int | None, optional): Seed of the initial weights and of the pairs. The support set is drawn by the data
            module's own seed. Defaults to ``None``: the global seed (``--seed_everything``), or 0 without one.
        pre_processor (PreProcessor | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (DistanceCalibrationPostProcessor | PostProcessor | bool, optional): Post-processor, or whether
            to use the default (monotonic calibration). Defaults to ``True``.
        evaluator (Evaluator | bool, optional): Evaluator, or whether to use the default (exact AUROC, F1).
            Defaults to ``True``.
        visualizer (Visualizer | bool, optional): Visualizer, or whether to use the default. Defaults to ``True``.

    Raises:
        ValueError: If an option has no such value, or patches do not cover images of this size.
        TypeError: If the post-processor is one for scores of another kind.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_mediclip import MedicalFolder, PatchSVDD
        >>> model = PatchSVDD(strides=(16, 8), pairs=32)  # doctest: +SKIP
        >>> datamodule = MedicalFolder("datasets/sample", k_shot=16)  # doctest: +SKIP
        >>> Engine(max_steps=60).train(model, datamodule=datamodule)  # doctest: +SKIP
    """

    MAX_STEPS = 7500
    SMALLER = "larger --model.strides or fewer support images"
    TRAINING_OPTIONS = FittedModule.TRAINING_OPTIONS | {
        "svdd_weight",
        "pairs",
        "keep_inside",
        "fixed_readout",
        "learning_rate",
    }

    model: PatchSVDDModel

    def __init__(
        self,
        image_size: tuple[int, int] = (224, 224),
        embedding_dim: int = 64,
        strides: Sequence[int] = (16, 4),
        svdd_weight: float = 1e-3,
        pairs: int = 64,
        keep_inside: bool = True,
        fixed_readout: bool = False,
        subtract: Subtracted = "mean_colour",
        combine: Combination = "product",
        learning_rate: float = 1e-4,  # noqa: ARG002  # a hyper-parameter, read in make_optimizer
        seed: int | None = None,  # noqa: ARG002  # a hyper-parameter, read as used_seed
        pre_processor: PreProcessor | bool = True,
        post_processor: DistanceCalibrationPostProcessor | PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        _check_numbers(pairs, svdd_weight, keep_inside, image_size)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = PatchSVDDModel(
            (image_size[0], image_size[1]),
            embedding_dim,
            (strides[0], strides[1]),
            fixed_readout,
            subtract,
            combine,
            self.used_seed,
        )
        self.loss = PatchSVDDLoss(svdd_weight)

    @property
    def trains(self) -> bool:
        """Whether the encoder learns."""
        return bool(self.hparams["learning_rate"])

    def on_train_start(self) -> None:
        """Take the mean of the support set."""
        super().on_train_start()
        self.model.take_mean(self.support.to(self.device))

    def training_step(self, batch: ImageBatch, batch_idx: int = 0, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Tell directions of neighbours, and keep close patches close (paper, section 3)."""
        del args, kwargs
        images = in_range(batch.image).cpu() - self.model.mean.cpu()
        generator = self.generator_of_batch(batch_idx)
        drawn = [self._draw(images, side, generator) for side in (LARGE, SMALL)]
        patches = [torch.cat(self._patches(images, *pairs, generator)).to(self.device) for pairs in drawn]
        embeddings = self.model.embed_patches(*patches)
        classifiers = (self.model.large_classifier, self.model.small_classifier)
        losses = []
        for embedded, classifier, (_, neighbours) in zip(embeddings, classifiers, drawn, strict=True):
            close_first, close_second, first, second = embedded.chunk(4)
            directions = torch.as_tensor(neighbours.directions).to(self.device)
            losses.append(self.loss(classifier(first, second), directions, close_first, close_second))
        return self.checked_loss(losses[0] + losses[1], batch.batch_size)

    def _draw(self, images: torch.Tensor, side: int, generator: torch.Generator) -> tuple[Pairs, Pairs]:
        """Draw close pairs and neighbours of one patch size."""
        options, size = self.hparams, (images.shape[2], images.shape[3])
        given = options["pairs"], len(images), size, side, options["keep_inside"], generator
        return draw_close_pairs(*given), draw_neighbours(*given)

    @staticmethod
    def _patches(
        images: torch.Tensor, close: Pairs, neighbours: Pairs, generator: torch.Generator
    ) -> list[torch.Tensor]:
        """Cut first and second patches of close pairs, then those of neighbours, which get noise."""
        of_close = [cut(images, close.images, corners, close.side) for corners in (close.first, close.second)]
        corners = (neighbours.first, neighbours.second)
        return of_close + [add_noise(cut(images, neighbours.images, c, neighbours.side), generator) for c in corners]

    def on_train_end(self) -> None:
        """Warn of a collapse."""
        large, small = self.model.statistics.spreads
        if self.trains and min(large, small) < LEAST_SPREAD:
            logger.warning(
                "The embeddings of all patches are nearly equal: their standard deviation is %.2g for patches of 64 "
                "pixels and %.2g for those of 32, in a range from -1 to 1. The maps mean little. Lower "
                "--model.svdd_weight (%g), or give other --trainer.max_steps.",
                large,
                small,
                self.hparams["svdd_weight"],
            )

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return Adam without a schedule, as in the official code."""
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learnt, lr=self.hparams["learning_rate"])


def _check_numbers(pairs: int, svdd_weight: float, keep_inside: bool, image_size: tuple[int, int]) -> None:
    """Refuse options without meaning."""
    if pairs < 1 or svdd_weight < 0:
        msg = f"pairs={pairs}, svdd_weight={svdd_weight}: there must be a pair, and the weight must not be negative."
        raise ValueError(msg)
    if keep_inside and min(image_size) < 2 * LARGE - 1:
        msg = (
            f"image_size={tuple(image_size)}: two neighbouring patches of 64 pixels do not fit. Use at least "
            f"{2 * LARGE} pixels, or --model.keep_inside false."
        )
        raise ValueError(msg)
