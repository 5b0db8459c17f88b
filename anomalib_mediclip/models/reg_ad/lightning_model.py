# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""RegAD as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2207.07361
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer

from anomalib_mediclip.data.dataset import image_paths
from anomalib_mediclip.evaluation.calibration import DistanceCalibrationPostProcessor
from anomalib_mediclip.io import read_image
from anomalib_mediclip.models.components.feature_cache import FeatureCache
from anomalib_mediclip.models.components.fitted_module import FittedModule
from anomalib_mediclip.models.reg_ad.categories import OtherCategories, TargetFingerprints
from anomalib_mediclip.models.reg_ad.episodes import draw_support_episode
from anomalib_mediclip.models.reg_ad.loss import RegistrationLoss
from anomalib_mediclip.models.reg_ad.spatial_transformer import TransformMode
from anomalib_mediclip.models.reg_ad.torch_model import VIEWS, RegADModel

logger = logging.getLogger(__name__)

COLLAPSED = -0.999  # a loss below it: all features agree, whatever they are of


class RegAD(FittedModule, AnomalibModule):
    """RegAD: features of two normal images shall register; a Gaussian at each position tells what is normal.

    The paper trains on the normal images of many categories, and describes a new category by Gaussians of augmented
    support images, without further training. Its weights cannot be had for medical images, so ``registration`` says
    what is registered:

    * ``none``: nothing. Transformers stay at rest and are left out; the features are those of ImageNet. This is the
      method's control: PaDiM on views of the support images. Nothing is random in it.
    * ``support``: views of the support images with views of other support images, which the paper calls individual
      training, and its authors a naive baseline that overfits quickly. Hence few steps.
    * A list of folders, each with normal images of one other category: the paper's training. More than the support set
      is used then, and a table of results must say so.

    What else differs from the official code, or had to be decided, and why:

    * Images are normalised as the backbone expects; the official code has that commented out (``normalise: false``).
    * The last weights are kept. The official code tests before each of 50 epochs and keeps the best on the test set.
    * Feature maps are moved back by one inverse matrix and resampled once, not by up to three matrices in turn.
    * Covariances are never inverted, and a low-rank form takes their place where there are fewer views than channels.
    * Supports of a query are different images; the official code may draw one twice.
    * In ``support``, query and supports are each seen in a view of one of the 22 kinds, with angles and shifts drawn
      from their ranges. The paper does not say how its individual training augments. A single support image is
      registered with another view of itself.
    * One cosine over the steps; the official one falls once an epoch.
    * In validation a painted support image is compared with Gaussians of the other support images, or the thresholds
      would be those of images that the Gaussians know. A single support image has no others, and its thresholds are
      too low.

    Args:
        encoder (str, optional): Backbone: ``timm/<model>``. Defaults to ``"timm/resnet18.tv_in1k"``.
        weights (str | None, optional): Initial weights: ``pretrained``, or the path of a checkpoint; null for random
            ones (tests only). Defaults to ``"pretrained"``.
        layers (Sequence[int], optional): Stages whose features are moved and compared, counted from 1 (the stem of a
            ResNet). Defaults to ``(2, 3, 4)``: layer1 to layer3 of a ResNet, strides 4, 8 and 16.
        image_size (tuple[int, int], optional): Height and width in pixels to which images are resized.
            Defaults to ``(224, 224)``.
        registration (str | list[str], optional): ``none``, ``support``, or folders of normal images of other
            categories, one folder each. Defaults to ``"support"``.
        transform (TransformMode, optional): What the spatial transformers may change: ``affine``, ``translation``,
            ``rotation``, ``scale``, ``shear``, ``rotation_scale``, ``translation_scale``, ``rotation_translation`` or
            ``rotation_translation_scale``. Defaults to ``"rotation_scale"``.
        shots (int, optional): Supports of each query in training, whose features are averaged; at most one less than
            there are support images. Defaults to ``2``.
        train_backbone (bool, optional): Whether the backbone learns with transformers and head; if not, its batch
            normalisation keeps the published statistics. Defaults to ``True``.
        views (Sequence[str], optional): Kinds of views that the Gaussians see, and ``support`` registers, beside the
            image itself: ``rotate`` (8), ``translate`` (8), ``flip``, ``grey`` and ``rotate90`` (3).
            Defaults to all five: 22 views.
        ridge (float, optional): What is added to the variances. Defaults to ``0.01``.
        statistics_stride (int, optional): Pixels from one Gaussian to the next: the stride of the first of ``layers``,
            or twice that, which takes a quarter of the memory. Defaults to ``4``, the paper's: 2.5 GB for a ResNet-18
            and 21 or more support images.
        normalise (bool, optional): Whether images are normalised as the backbone expects. Defaults to ``True``.
        learning_rate (float, optional): Learning rate of SGD, which falls to 0 along a cosine. Defaults to ``1e-4``.
        momentum (float, optional): Momentum of SGD. Defaults to ``0.9``.
        queries (int, optional): Queries a step. Defaults to ``32``.
        seed (int | None, optional): Seed of new weights, and of what a step registers. The support set is drawn by the
            data module's own seed. Defaults to ``None``: the global seed (``--seed_everything``), or 0 without one.
        pre_processor (PreProcessor | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (DistanceCalibrationPostProcessor | PostProcessor | bool, optional): Post-processor, or whether
            to use the default (monotonic calibration). Defaults to ``True``.
        evaluator (Evaluator | bool, optional): Evaluator, or whether to use the default (exact AUROC, F1).
            Defaults to ``True``.
        visualizer (Visualizer | bool, optional): Visualizer, or whether to use the default. Defaults to ``True``.

    Raises:
        ValueError: If the encoder, its weights or a stage does not exist, or an option has no such value.
        TypeError: If the post-processor is one for scores of another kind.
        RuntimeError: If the encoder's weights cannot be downloaded.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_mediclip import MedicalFolder
        >>> model = RegAD("timm/tf_efficientnet_lite0.in1k", registration="none")  # doctest: +SKIP
        >>> datamodule = MedicalFolder("datasets/sample", k_shot=16)  # doctest: +SKIP
        >>> Engine().train(model, datamodule=datamodule)  # doctest: +SKIP
    """

    MAX_STEPS = 100
    SMALLER = "--model.statistics_stride 8 or a backbone with fewer channels"
    TRAINING_OPTIONS = FittedModule.TRAINING_OPTIONS | {
        "weights",
        "shots",
        "train_backbone",
        "learning_rate",
        "momentum",
        "queries",
    }

    model: RegADModel
    _categories: OtherCategories | None = None
    _lowest_loss: torch.Tensor | None = None

    def __init__(
        self,
        encoder: str = "timm/resnet18.tv_in1k",
        weights: str | None = "pretrained",
        layers: Sequence[int] = (2, 3, 4),
        image_size: tuple[int, int] = (224, 224),
        registration: str | list[str] = "support",
        transform: TransformMode = "rotation_scale",
        shots: int = 2,
        train_backbone: bool = True,
        views: Sequence[str] = VIEWS,
        ridge: float = 0.01,
        statistics_stride: int = 4,
        normalise: bool = True,
        learning_rate: float = 1e-4,  # noqa: ARG002  # this and the next are hyper-parameters
        momentum: float = 0.9,  # noqa: ARG002
        queries: int = 32,
        seed: int | None = None,  # noqa: ARG002  # a hyper-parameter, read as used_seed
        pre_processor: PreProcessor | bool = True,
        post_processor: DistanceCalibrationPostProcessor | PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        _check(registration, shots, queries)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = RegADModel(
            encoder,
            weights,
            layers,
            (image_size[0], image_size[1]),
            None if registration == "none" else transform,
            train_backbone,
            views,
            ridge,
            statistics_stride,
            normalise,
            self.used_seed,
        )
        self.loss = RegistrationLoss()

    @property
    def trains(self) -> bool:
        """Whether anything is registered."""
        return self.hparams["registration"] != "none"

    def on_train_start(self) -> None:
        """Read the images of other categories, if there are folders of them."""
        super().on_train_start()
        folders = self.hparams["registration"]
        if isinstance(folders, str):
            return
        tested = getattr(getattr(self.trainer, "datamodule", None), "test_data", None)
        target = [*image_paths(self.training_set), *(image_paths(tested) if tested else ())]
        self._categories = OtherCategories(
            folders,
            self.hparams["shots"],
            lambda path: self.transformed(read_image(path)),
            TargetFingerprints(target, self.support),
            FeatureCache(Path(self.trainer.default_root_dir)),
            "reading images of other categories" if self.shows_progress else None,
        )

    def training_step(self, batch: ImageBatch, batch_idx: int = 0, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Register queries with their supports (paper, section 3.2)."""
        del batch, args, kwargs
        queries, supports = self._episode(self.generator_of_batch(batch_idx))
        loss = self.loss(self.model.register(queries.to(self.device), supports.to(self.device)))
        lowest = loss.detach()
        self._lowest_loss = lowest if self._lowest_loss is None else torch.minimum(lowest, self._lowest_loss)
        return self.checked_loss(loss, len(queries))

    def _episode(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the queries ``(B, 3, H, W)`` of a step and their supports ``(B, K, 3, H, W)``."""
        options = self.hparams
        if self._categories is not None:
            return self._categories.draw(options["queries"], generator)
        return draw_support_episode(self.support, options["queries"], options["shots"], options["views"], generator)

    def on_train_end(self) -> None:
        """Warn of a collapse."""
        lowest = math.inf if self._lowest_loss is None else self._lowest_loss.item()
        self._lowest_loss = None
        if lowest < COLLAPSED:
            logger.warning(
                "The loss fell to %.4f within %d steps, and its least value, -1, is that of features that are the same "
                "whatever the image shows. Lower --model.learning_rate (%g) or --trainer.max_steps, and compare with "
                "--model.registration none, which trains nothing.",
                lowest,
                self.global_step,
                self.hparams["learning_rate"],
            )

    def make_optimizer(self) -> dict[str, Any]:
        """Return SGD with the settings of the official code, and one cosine over all steps."""
        return self.sgd_with_cosine()

    def teardown(self, stage: str) -> None:
        """Free what only the validation of support images needs."""
        super().teardown(stage)
        self._categories = None
        self.model.forget_views()


def _check(registration: Any, shots: int, queries: int) -> None:
    """Refuse options without meaning."""
    if isinstance(registration, str) and registration not in ("none", "support"):
        msg = f"registration={registration!r}: use none, support, or a list of folders, such as [{registration}]."
        raise ValueError(msg)
    if not registration:
        msg = "registration=[]: name at least one folder of normal images of another category, or use none or support."
        raise ValueError(msg)
    if shots < 1 or queries < 1:
        msg = f"shots={shots}, queries={queries}: both must be at least 1."
        raise ValueError(msg)
