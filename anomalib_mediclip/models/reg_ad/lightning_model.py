# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""RegAD as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2207.07361
"""

import logging
import math
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
from anomalib_mediclip.models.reg_ad.episodes import draw_support_episode
from anomalib_mediclip.models.reg_ad.loss import RegistrationLoss
from anomalib_mediclip.models.reg_ad.spatial_transformer import TransformMode
from anomalib_mediclip.models.reg_ad.torch_model import VIEWS, RegADModel
from anomalib_mediclip.seeds import generator_of

logger = logging.getLogger(__name__)

COLLAPSED = -0.999  # a loss below it: all features agree, whatever they are of


class RegAD(FittedModule, AnomalibModule):
    """RegAD: features that register with each other, and a Gaussian at each position of them."""

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

    def training_step(self, batch: ImageBatch, batch_idx: int = 0, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Register queries with their supports (paper, section 3.2)."""
        del batch, args, kwargs
        batch_of_step = batch_idx % self.trainer.accumulate_grad_batches
        generator = generator_of(self.used_seed, self.global_step, self.global_rank, batch_of_step)
        queries, supports = self._episode(generator)
        loss = self.loss(self.model.register(queries.to(self.device), supports.to(self.device)))
        cure = f"Lower --model.learning_rate ({self.hparams['learning_rate']}), or use --trainer.precision 32."
        return self.checked_loss(loss, len(queries), cure)

    def _episode(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the queries ``(B, 3, H, W)`` of a step and their supports ``(B, K, 3, H, W)``."""
        options = self.hparams
        return draw_support_episode(self.support, options["queries"], options["shots"], options["views"], generator)

    def make_optimizer(self) -> dict[str, Any]:
        """Return SGD with the settings of the official code, and one cosine over all steps."""
        options, steps = self.hparams, max(1, int(self.trainer.estimated_stepping_batches))
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(learnt, lr=options["learning_rate"], momentum=options["momentum"])
        cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def teardown(self, stage: str) -> None:
        """Free what only the validation of support images needs."""
        super().teardown(stage)
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
