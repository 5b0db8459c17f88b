# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CutPaste as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2104.04015
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from torch.nn import functional

from anomalib_mediclip.encoders.staged_encoder import LearningStages
from anomalib_mediclip.evaluation.calibration import DistanceCalibrationPostProcessor
from anomalib_mediclip.models.components.fitted_module import FittedModule
from anomalib_mediclip.models.components.support_methods import in_range
from anomalib_mediclip.models.cut_paste.density import DensityType
from anomalib_mediclip.models.cut_paste.pasting import Kind, augment, paste_visibly
from anomalib_mediclip.models.cut_paste.torch_model import CutPasteModel

logger = logging.getLogger(__name__)

Variant = Literal["3way", "binary", "scar", "union"]

# what is pasted for each label after the first, which is that of normal images; one of several is drawn
PASTED: dict[str, tuple[tuple[Kind, ...], ...]] = {
    "3way": (("cut_paste",), ("scar",)),
    "binary": (("cut_paste",),),
    "scar": (("scar",),),
    "union": (("cut_paste", "scar"),),
}


class CutPaste(FittedModule, AnomalibModule):
    """CutPaste: a network learns to see pasted rectangles, and a density of its features tells what is normal.

    The authors published no code. The defaults are the paper's as far as it is known; what differs or had to be
    decided, and why:

    * The head is that of the best known reproduction: two hidden layers, 512 and 128 wide, with batch normalisation.
    * Features are divided by their length before the density, as in the authors' earlier code.
    * The covariance is that of Ledoit and Wolf: with fewer images than channels another one is singular, or ruled by a
      constant. With 4, 16 and 32 independent vectors it shrinks by 0.5, 0.87 and 0.94 towards all directions alike.
      So that it knows more, the density sees 32 views of each support image: shifted, with other colours, and without
      anything pasted. The paper's is ``views: 1``.
    * The paper shifts images by an unknown amount; here it is up to 4 percent of the sides, edges reflected.
    * Images are 224 x 224 like those of the other models, not 256 x 256; scars are smaller by the same factor.
    * A paste that changes nothing, such as background on background, is drawn again.
    * The last weights are kept. The paper trains for 65,536 steps, its reproductions for 10,000, as here.
    * The paper gives Grad-CAM maps of images; here it is that of the distance, in closed form. Its patch model, which
      localises better, is not built.

    Args:
        encoder (str, optional): Backbone that learns: ``timm/<model>``. Defaults to ``"timm/resnet18.tv_in1k"``.
        weights (str | None, optional): Initial weights: ``pretrained``, the path of a checkpoint, or null for random
            ones, the paper's setting. Reproductions start from ``pretrained``. Defaults to ``None``.
        layer (int, optional): Stage whose feature map is pooled, counted from 1 (the stem of a ResNet).
            Defaults to ``5``, the last one of a ResNet.
        image_size (tuple[int, int], optional): Height and width in pixels to which images are resized.
            Defaults to ``(224, 224)``.
        variant (Variant, optional): What the network tells apart: normal images, pasted rectangles and scars
            (``3way``); two of these (``binary``, ``scar``); or normal images and either (``union``).
            Defaults to ``"3way"``.
        head (Sequence[int], optional): Widths of the hidden layers of the head. Defaults to ``(512, 128)``.
        train_stages (LearningStages, optional): ``all``, or how many of the last stages learn; 0 is the control of
            the method: nothing is trained, and the density is that of the initial features. Batch normalisation learns
            its statistics with ``all`` only. Defaults to ``"all"``.
        density (DensityType, optional): ``gaussian`` (Mahalanobis distance) or ``kde`` (kernel density of the
            authors' earlier code). Defaults to ``"gaussian"``.
        views (int, optional): Views of each support image that the density sees, the image itself included.
            Defaults to ``32``.
        jitter (float, optional): Largest change of brightness, contrast, saturation and hue, of images and of what is
            pasted. Defaults to ``0.1``.
        translation (float, optional): Largest shift of images, as a share of each side. Defaults to ``0.04``.
        originals (int, optional): Support images a step, repeated if there are fewer, each with draws of its own; a
            step has two or three times as many images. Defaults to ``32``.
        learning_rate (float, optional): Learning rate of SGD, which falls to 0 along a cosine. Defaults to ``0.03``.
        momentum (float, optional): Momentum of SGD. Defaults to ``0.9``.
        weight_decay (float, optional): L2 penalty. Defaults to ``3e-5``.
        seed (int | None, optional): Seed of random weights, pastes and views. The support set is drawn by the data
            module's own seed. Defaults to ``None``: the global seed (``--seed_everything``), or 0 without one.
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
        >>> from anomalib_mediclip import CutPaste, MedicalFolder
        >>> model = CutPaste("timm/tf_efficientnet_lite0.in1k", "pretrained", train_stages=2)  # doctest: +SKIP
        >>> datamodule = MedicalFolder("datasets/sample", k_shot=16)  # doctest: +SKIP
        >>> Engine(max_steps=40).train(model, datamodule=datamodule)  # doctest: +SKIP
    """

    MAX_STEPS = 10_000
    TRAINING_OPTIONS = FittedModule.TRAINING_OPTIONS | {
        "weights",
        "train_stages",
        "originals",
        "learning_rate",
        "momentum",
        "weight_decay",
    }

    model: CutPasteModel

    def __init__(
        self,
        encoder: str = "timm/resnet18.tv_in1k",
        weights: str | None = None,
        layer: int = 5,
        image_size: tuple[int, int] = (224, 224),
        variant: Variant = "3way",
        head: Sequence[int] = (512, 128),
        train_stages: LearningStages = "all",
        density: DensityType = "gaussian",
        views: int = 32,
        jitter: float = 0.1,
        translation: float = 0.04,
        originals: int = 32,
        learning_rate: float = 0.03,  # noqa: ARG002  # this and the next two are hyper-parameters
        momentum: float = 0.9,  # noqa: ARG002
        weight_decay: float = 3e-5,  # noqa: ARG002
        seed: int | None = None,  # noqa: ARG002  # a hyper-parameter, read as used_seed
        pre_processor: PreProcessor | bool = True,
        post_processor: DistanceCalibrationPostProcessor | PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        _check_numbers(variant, views, jitter, translation, originals)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = CutPasteModel(
            encoder,
            weights,
            layer,
            (image_size[0], image_size[1]),
            classes=1 + len(PASTED[variant]),
            head=head,
            train_stages=train_stages,
            density=density,
            views=views,
            jitter=jitter,
            translation=translation,
            seed=self.used_seed,
        )
        self._unchanged = 0

    @property
    def trains(self) -> bool:
        """Whether a stage learns: the head alone could not change a score."""
        return self.hparams["train_stages"] != 0

    def training_step(self, batch: ImageBatch, batch_idx: int = 0, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Tell normal images from pasted ones (paper, section 2.1): cross-entropy, all kinds in one batch."""
        del args, kwargs
        images, labels = self.pasted(in_range(batch.image), self.generator_of_batch(batch_idx))
        logits = self.model(images.to(self.device, non_blocking=True))
        return self.checked_loss(functional.cross_entropy(logits, labels.to(self.device)), len(images))

    def pasted(self, images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the images of a step, and their labels.

        Args:
            images (torch.Tensor): Support images ``(B, 3, H, W)`` in [0, 1].
            generator (torch.Generator): Source of the draws, on the CPU.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Images ``(n, 3, H, W)``, on the CPU: all normal ones first, then all of
            the first kind of paste, and so on; and their labels ``(n,)``, int64, 0 for normal.
        """
        options, size = self.hparams, self.hparams["originals"]
        jitter, translation = options["jitter"], options["translation"]
        originals = images.cpu()[torch.arange(size) % len(images)]
        groups = [torch.stack([augment(image, jitter, translation, generator) for image in originals])]
        for kinds in PASTED[options["variant"]]:
            pasted, visible = zip(*(self._paste_one(image, kinds, generator) for image in groups[0]), strict=True)
            groups.append(torch.stack(pasted))
            self._unchanged += len(visible) - sum(visible)
        return torch.cat(groups), torch.arange(len(groups)).repeat_interleave(size)

    def _paste_one(
        self, image: torch.Tensor, kinds: tuple[Kind, ...], generator: torch.Generator
    ) -> tuple[torch.Tensor, bool]:
        """Paste a rectangle of one of the kinds; say whether that changed the image."""
        kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
        return paste_visibly(kind, image, self.hparams["jitter"], generator)

    def on_train_end(self) -> None:
        """Say how many pastes changed nothing."""
        if self._unchanged:
            logger.warning(
                "%d pasted images do not differ from the normal ones: ten rectangles in turn had the colour of what "
                "they were pasted on. The support images are almost uniform; look at them.",
                self._unchanged,
            )
        self._unchanged = 0

    def teardown(self, stage: str) -> None:
        """Free what only the validation within a training needs."""
        super().teardown(stage)
        self.model.held_out = []

    def make_optimizer(self) -> dict[str, Any]:
        """Return SGD with the settings of the paper, and one cycle of a cosine."""
        return self.sgd_with_cosine(self.hparams["weight_decay"])


def _check_numbers(variant: str, views: int, jitter: float, translation: float, originals: int) -> None:
    """Refuse options without meaning."""
    if variant not in PASTED:
        msg = f"variant={variant!r}: use one of {', '.join(PASTED)}."
        raise ValueError(msg)
    if views < 1 or originals < 1:
        msg = f"views={views}, originals={originals}: both must be at least 1."
        raise ValueError(msg)
    if not 0 <= jitter <= 0.5 or not 0 <= translation < 0.5:
        msg = f"jitter={jitter}, translation={translation}: both must be 0 or more, and at most 0.5."
        raise ValueError(msg)
