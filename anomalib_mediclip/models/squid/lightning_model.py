# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SQUID as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2111.13495
"""

import math
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_mediclip.evaluation.calibration import LogitCalibrationPostProcessor
from anomalib_mediclip.models.components.fitted_module import FittedModule
from anomalib_mediclip.models.components.grey_views import draw_views, to_grey
from anomalib_mediclip.models.components.support_methods import in_range
from anomalib_mediclip.models.squid.loss import discriminator_loss, generator_loss
from anomalib_mediclip.models.squid.torch_model import MOVES, SQUIDModel

STEPS_OF_TWO_BATCHES = 3  # two of the discriminator, one of the generator
BETAS = (0.5, 0.999)  # of Adam
FLOOR = 0.5  # of the generator's learning rate, as a share; half a cosine leads there
HALF_CYCLE = 1.5  # length of that half cosine in trainings: the official one is 300 epochs, and 200 are trained


class SQUID(FittedModule, AnomalibModule):
    """SQUID: features of patches are in-painted from a memory of normal ones; what looks unreal then is anomalous.

    The defaults follow the official code for CheXpert. What differs or had to be decided, and why:

    * Images are 128 x 128, as in the paper, and grey: the mean of the channels.
    * The 4 best slots answer a query. The official code keeps what exceeds the fifth best, which is the same but for
      ties, where it reads zeros.
    * The generator learns in every second batch of the training. The official code counts within an epoch, so that
      with up to 16 images it would learn in every batch.
    * Steps are fixed (25,500, in 17,000 batches) and the same for every k, as many as the official 200 epochs have. A
      batch has 16 views, for which the support images take turns.
    * Moved views have the value of the nearest border pixel where something comes from outside.
    * The generator's learning rate follows the official cosine, stretched to the length of the training, in batches
      instead of epochs: it ends at 0.625 of its start. The discriminator's is constant, as in the official code.
    * The last weights are kept. The official code keeps those with the best AUROC on labelled validation images.
    * The discriminator judges each image by its own statistics, as the official code does by leaving it in training
      mode.
    * The image score is the logit of the paper's. Its scale is taken from the support images and moved views of them;
      none of it changes the AUROC.
    * The paper has no map of pixels. The map here is ours: the error of the reconstruction, smoothed.

    Lightning counts the steps of both optimizers: ``max_steps: 3`` trains the discriminator on two batches and the
    generator on one.

    Args:
        image_size (tuple[int, int], optional): Height and width in pixels to which images are resized, multiples of 32.
            Defaults to ``(128, 128)``.
        width (int, optional): Channels of the first block of the encoder, even; the deepest has 16 times as many.
            Defaults to ``32``.
        slots (int, optional): Slots of each memory. Defaults to ``200``.
        top_k (int, optional): Slots that a query is answered with. Defaults to ``4``.
        shortcut (float, optional): Share of the positions at which features are replaced by what the memories hold, in
            training; at inference all are. Defaults to ``0.95``.
        views (int, optional): Moved views of support images in a batch. Defaults to ``16``.
        learning_rate (float, optional): Learning rate of Adam, of both networks. Defaults to ``1e-4``.
        seed (int | None, optional): Seed of initial weights, views and shortcuts. The support set is drawn by the data
            module's own seed. Defaults to ``None``: the global seed (``--seed_everything``), or 0 without one.
        pre_processor (PreProcessor | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (LogitCalibrationPostProcessor | PostProcessor | bool, optional): Post-processor, or whether to
            use the default (monotonic calibration). Defaults to ``True``.
        evaluator (Evaluator | bool, optional): Evaluator, or whether to use the default (exact AUROC, F1).
            Defaults to ``True``.
        visualizer (Visualizer | bool, optional): Visualizer, or whether to use the default. Defaults to ``True``.

    Raises:
        ValueError: If an option has no such value, or images cannot have this size.
        TypeError: If the post-processor is one for scores of another kind.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_mediclip import SQUID, MedicalFolder
        >>> model = SQUID(width=8, views=8)  # doctest: +SKIP
        >>> datamodule = MedicalFolder("datasets/sample", k_shot=16)  # doctest: +SKIP
        >>> Engine(max_steps=1500).train(model, datamodule=datamodule)  # doctest: +SKIP
    """

    MAX_STEPS = 25_500
    SCORES = "logit"
    TRAINING_PART = "teacher"
    TRAINING_OPTIONS = FittedModule.TRAINING_OPTIONS | {"shortcut", "views", "learning_rate"}

    model: SQUIDModel

    def __init__(
        self,
        image_size: tuple[int, int] = (128, 128),
        width: int = 32,
        slots: int = 200,
        top_k: int = 4,
        shortcut: float = 0.95,
        views: int = 16,
        learning_rate: float = 1e-4,  # noqa: ARG002  # a hyper-parameter, read in make_optimizer
        seed: int | None = None,  # noqa: ARG002  # a hyper-parameter, read as used_seed
        pre_processor: PreProcessor | bool = True,
        post_processor: LogitCalibrationPostProcessor | PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        _check_numbers(width, slots, top_k, shortcut, views)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = SQUIDModel((image_size[0], image_size[1]), width, slots, top_k, shortcut, self.used_seed)
        self.automatic_optimization = False

    # -- training ------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse several devices: each would have a memory of its own."""
        if stage == TrainerFn.FITTING and self.trainer.world_size > 1:
            msg = f"{self.name} is trained on one device: its memory is that of one process. Give --trainer.devices 1."
            raise ValueError(msg)
        super().setup(stage)

    @property
    def trains_generator(self) -> bool:
        """Whether the generator learns in the batch that begins: in every second one of the training.

        The steps that were done tell it, and a resumed run knows them: two batches have three, and end with one of the
        discriminator alone.
        """
        return self.global_step % STEPS_OF_TWO_BATCHES == 0

    def training_step(self, batch: ImageBatch, batch_idx: int = 0, *args: Any, **kwargs: Any) -> None:
        """Train the discriminator, and in every second batch the generator; then remember what that saw."""
        del args, kwargs
        trains_generator, draws = self.trains_generator, self.generator_of_batch(batch_idx)
        optimizers: Any = self.optimizers()  # declared as one or several
        generator, discriminator = optimizers
        images = draw_views(to_grey(in_range(batch.image)), self.hparams["views"], MOVES, draws)
        with torch.no_grad():
            reconstructions = self.model.imitate(images, draws)
        # in two passes: batch normalisation sees real and reconstructed images apart
        judged = self.model.discriminator(images), self.model.discriminator(reconstructions)
        self._descend(discriminator, discriminator_loss(*judged), len(images), "discriminator_loss")
        if trains_generator:
            self.toggle_optimizer(generator)  # the discriminator judges, and collects no gradients
            generated = self.model.generate(images, draws)
            loss = generator_loss(images, generated, self.model.discriminator(generated.student))
            self._descend(generator, loss, len(images), "generator_loss")
            self.untoggle_optimizer(generator)
            self.model.inpainting.queues.update(generated.queries)
        self.lr_schedulers().step()  # type: ignore[union-attr]  # there is one, and it counts batches

    def _descend(self, optimizer: Any, loss: torch.Tensor, number: int, name: str) -> None:
        """Make a step along the gradient of a loss."""
        optimizer.zero_grad()
        self.manual_backward(self.checked_loss(loss, number, name=name))
        optimizer.step()

    def make_optimizer(self) -> Any:
        """Return Adam for the generator, with half a cosine, and for the discriminator."""
        rate, judge = self.hparams["learning_rate"], list(self.model.discriminator.parameters())
        others = [p for name, p in self.model.named_parameters() if not name.startswith("discriminator.")]
        generator = torch.optim.Adam(others, lr=rate, betas=BETAS, eps=1e-7, weight_decay=1e-5)
        half_cycle = HALF_CYCLE * self._number_of_batches()

        def share(batch: int) -> float:
            return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * min(1, batch / half_cycle))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(generator, share)
        return [generator, torch.optim.Adam(judge, lr=rate, betas=BETAS)], [schedule]

    def _number_of_batches(self) -> int:
        """Return how many batches the training has; where it is limited by time, as many as it has by default."""
        trainer = self.trainer
        limits = [] if trainer.max_steps == -1 else [batches_of(trainer.max_steps)]
        if trainer.max_epochs not in (None, -1):
            trainer.fit_loop.setup_data()
            limits.append(trainer.max_epochs * int(trainer.num_training_batches))
        return max(1, min(limits, default=batches_of(self.MAX_STEPS)))


def batches_of(steps: int) -> int:
    """Return how many batches a number of steps takes: two steps in the first of two batches, one in the second.

    Args:
        steps (int): Steps of both optimizers.

    Returns:
        int: Batches.

    Example:
        >>> batches_of(25_500), batches_of(4)
        (17000, 3)
    """
    return 2 * (steps // STEPS_OF_TWO_BATCHES) + (steps % STEPS_OF_TWO_BATCHES > 0)


def _check_numbers(width: int, slots: int, top_k: int, shortcut: float, views: int) -> None:
    """Refuse options without meaning."""
    if width < 2 or width % 2:
        msg = f"width={width}: it must be even, so that eight heads share the features."
        raise ValueError(msg)
    if not 1 <= top_k <= slots:
        msg = f"top_k={top_k}, slots={slots}: at least one slot must answer, and not more than there are."
        raise ValueError(msg)
    if not 0 <= shortcut <= 1 or views < 1:
        msg = f"shortcut={shortcut}, views={views}: the first must lie in [0, 1], and there must be a view."
        raise ValueError(msg)
