# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SimpleNet as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2303.15140
"""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_mediclip.evaluation.calibration import LogitCalibrationPostProcessor, ScoreKind
from anomalib_mediclip.models.components.feature_cache import NoSpaceError
from anomalib_mediclip.models.components.frozen_encoder import EncoderPrecision, FrozenEncoderModule
from anomalib_mediclip.models.simplenet.loss import SimpleNetLoss
from anomalib_mediclip.models.simplenet.torch_model import SimpleNetModel

logger = logging.getLogger(__name__)

# all three from the paper, section 4.1
ADAPTOR_LEARNING_RATE = 1e-4
DISCRIMINATOR_LEARNING_RATE = 2e-4
WEIGHT_DECAY = 1e-5


class SimpleNet(FrozenEncoderModule, AnomalibModule):
    """SimpleNet: a discriminator between features of normal images and the same features with noise.

    The defaults are the paper's. What differs from it, or from the official code, and why:

    * Images are squashed whole to 224 x 224, as for every model here; the paper crops the centre out of 256 x 256,
      which cuts lesions at the border away.
    * Levels are concatenated at their own widths, as in the paper's equations. That makes the 1536 channels of the
      paper for layer2 and layer3 of a Wide ResNet 50; the official code pools any backbone to 1536 channels, and
      averages parts of a neighbourhood where this and the paper average all of it.
    * The adaptor has no bias, and both parts are trained by Adam with weight decay 1e-5 (paper). The official code
      has a bias, and AdamW with decay 0.01 for the adaptor. Initial weights are its own: Xavier, normal.
    * Training runs for 160 epochs and keeps the last weights. The official code runs 40 times 4 epochs, tests after
      every four of them and keeps the weights that were best on the test set.
    * The batch size belongs to the data module, and is 8 there as in the official code; the paper has 4
      (``--data.train_batch_size 4``).
    * The model gives the paper's scores, which are unbounded; the post-processor shows them as probabilities, an
      increasing function of the scores.

    Args:
        encoder (str, optional): Frozen backbone: ``timm/<model>``. Defaults to ``"timm/wide_resnet50_2.tv_in1k"``.
        weights (str | None, optional): Weights of the backbone: ``pretrained``, or the path of a checkpoint; null for
            random weights (tests only). Defaults to ``"pretrained"``.
        layers (Sequence[int], optional): Stages whose features are used, counted from 1 (the stem of a ResNet).
            Defaults to ``(3, 4)``: layer2 and layer3 of a ResNet, strides 8 and 16.
        image_size (tuple[int, int], optional): Height and width in pixels to which images are resized.
            Defaults to ``(224, 224)``.
        noise (float, optional): Standard deviation of the noise that makes features anomalous, in the units of the
            backbone's features. Defaults to ``0.015``, the paper's for a Wide ResNet 50; a backbone with larger
            features needs more, or the noise cannot be told from nothing.
        encoder_precision (str, optional): ``float32``, or ``bfloat16``, which is faster where the hardware has it and
            changes maps a little. Defaults to ``"auto"``: ``float32`` for every backbone of timm.
        seed (int | None, optional): Seed of the initial weights and of the noise. The support set is drawn by the data
            module's own seed. Defaults to ``None``: the global seed (``--seed_everything``), or 0 without one.
        pre_processor (PreProcessor | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (LogitCalibrationPostProcessor | PostProcessor | bool, optional): Post-processor, or whether to
            use the default (monotonic calibration). Defaults to ``True``.
        evaluator (Evaluator | bool, optional): Evaluator, or whether to use the default (exact AUROC, F1).
            Defaults to ``True``.
        visualizer (Visualizer | bool, optional): Visualizer, or whether to use the default. Defaults to ``True``.

    Raises:
        ValueError: If the encoder, its weights or a layer does not exist, or the noise is not positive.
        TypeError: If the post-processor is one for scores of another kind.
        RuntimeError: If the encoder's weights cannot be downloaded.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_mediclip import MedicalFolder, SimpleNet
        >>> model = SimpleNet("timm/tf_efficientnet_lite0.in1k")  # doctest: +SKIP
        >>> datamodule = MedicalFolder("datasets/sample", k_shot=16)  # doctest: +SKIP
        >>> Engine().train(model, datamodule=datamodule)  # doctest: +SKIP
    """

    MAX_EPOCHS = 160  # paper, section 4.1
    SCORES: ClassVar[ScoreKind] = "logit"
    TRAINING_OPTIONS = FrozenEncoderModule.TRAINING_OPTIONS | {"noise"}

    model: SimpleNetModel

    def __init__(
        self,
        encoder: str = "timm/wide_resnet50_2.tv_in1k",
        weights: str | None = "pretrained",
        layers: Sequence[int] = (3, 4),
        image_size: tuple[int, int] = (224, 224),
        noise: float = 0.015,
        encoder_precision: EncoderPrecision = "auto",  # noqa: ARG002  # a hyper-parameter, read in setup
        seed: int | None = None,  # noqa: ARG002  # a hyper-parameter, read as used_seed
        pre_processor: PreProcessor | bool = True,
        post_processor: LogitCalibrationPostProcessor | PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = SimpleNetModel(encoder, weights, layers, image_size, noise, self.used_seed)
        self.finish_encoder()
        self.loss = SimpleNetLoss()

    def on_train_start(self) -> None:
        """Encode the support set: its features never change, unless its images do."""
        super().on_train_start()
        if self.repeats_support_set:
            try:
                self.encode_support_set()
            except NoSpaceError as error:
                logger.warning("Every step encodes its images: the %s.", error)

    def training_step(self, batch: ImageBatch, batch_idx: int, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Tell normal features of a batch from anomalous ones and compute the loss (paper, section 3.5)."""
        del args, kwargs
        noise = self.generator_of_batch(batch_idx)
        outputs: Any = self.model.head(self.support_features(batch), self.image_size, noise)
        normal, anomalous = outputs
        cure = "Use --trainer.precision 32, and look for images that cannot be right."
        return self.checked_loss(self.loss(normal, anomalous), batch.batch_size, cure)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with the settings of the paper."""
        groups = [
            {"params": self.model.adaptor.parameters(), "lr": ADAPTOR_LEARNING_RATE},
            {"params": self.model.discriminator.parameters(), "lr": DISCRIMINATOR_LEARNING_RATE},
        ]
        return torch.optim.Adam(groups, weight_decay=WEIGHT_DECAY)
