# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""AnoDDPM as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://openaccess.thecvf.com/content/CVPR2022W/NTIRE/html/Wyatt_AnoDDPM_CVPRW_2022_paper.html
"""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_mediclip.evaluation.calibration import CalibrationPostProcessor
from anomalib_mediclip.models.anoddpm.simplex import Scales, draw_permutations
from anomalib_mediclip.models.anoddpm.torch_model import AnoDDPMModel
from anomalib_mediclip.models.components.feature_cache import progress_bar
from anomalib_mediclip.models.components.few_shot_module import FewShotModule
from anomalib_mediclip.models.components.grey_views import MoveRanges, draw_views, to_grey
from anomalib_mediclip.models.components.support_methods import SupportMethods, in_range

MOVES = MoveRanges(angle=3, vertical=0.09, horizontal=0.02)  # those of the official code for brains


class AnoDDPM(SupportMethods, FewShotModule, AnomalibModule):
    """AnoDDPM: a diffusion model of normal images takes simplex noise away, and anomalies with it.

    The defaults are those of the official code for brain MRI. What differs or had to be decided, and why:

    * An image's score is the mean of its map. Neither the paper nor the official code has one.
    * The average of the weights begins fast (warm-up). With the official decay of 0.9999 alone, 2,000 steps would leave
      82 percent of the initial weights in it.
    * Each image of a step has a noise of its own. The official code trains on single images, because larger batches of
      simplex noise crash in it.
    * Inference has the same noise for all images, drawn from the seed: results are repeatable, and depend neither on
      the batch nor on the order of images.
    * Attention has two heads, also at inference. The official evaluation loads weights of two heads into one.
    * Steps are fixed: 37,500 of 8 views, which are the 300,000 views of the official configuration.
    * Images are squashed whole to ``image_size``, grey values are the mean of the channels, and are not clipped. What
      a moved view gets from outside is the border's value, not black.
    * The U-Net is MONAI's, with the official number of parameters. Its attention is not initialised at zero.

    Args:
        image_size (tuple[int, int], optional): Height and width in pixels to which images are resized.
            Defaults to ``(256, 256)``.
        channels (Sequence[int], optional): Width of each level of the U-Net.
            Defaults to ``(128, 128, 256, 256, 512, 512)``.
        residual_blocks (int, optional): Residual blocks of each level. Defaults to ``2``.
        attention (Sequence[bool], optional): Which levels have self-attention.
            Defaults to ``(False, False, False, True, True, True)``.
        heads (int, optional): Heads of the attention. Defaults to ``2``.
        wavelength (float, optional): Wavelength of the noise's first octave in pixels. It must follow the image size:
            64 pixels of 256 are 16 of 64. Defaults to ``64``.
        octaves (int, optional): Octaves of the noise, each of half the wavelength of the one before; the last should be
            2 pixels. Defaults to ``6``.
        persistence (float, optional): Amplitude of an octave as a share of the one before. Defaults to ``0.8``.
        timesteps (int, optional): Steps of the whole diffusion. Defaults to ``1000``.
        train_timesteps (int, optional): Steps from which training draws. Those above ``partial_steps`` are never needed
            to predict. Defaults to ``800``, as in the official code.
        partial_steps (int, optional): Steps by which an image is made noisy before it is reconstructed: the more, the
            larger the anomalies that are lost, and the less is left of the rest. Defaults to ``250``.
        sampling_steps (int | None, optional): Steps in which the noise is taken away, without new noise (DDIM); each
            costs a pass of the U-Net. Defaults to ``None``: all ``partial_steps``, with new noise, as in the paper.
        views (int, optional): Views of support images in each step. Defaults to ``8``.
        ema_decay (float, optional): Decay of the average of the weights, which predicts. Defaults to ``0.9999``.
        learning_rate (float, optional): Learning rate of AdamW. Defaults to ``1e-4``.
        seed (int | None, optional): Seed of the initial weights and of all noise. The support set is drawn by the data
            module's own seed. Defaults to ``None``: the global seed (``--seed_everything``), or 0 without one.
        pre_processor (PreProcessor | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (CalibrationPostProcessor | PostProcessor | bool, optional): Post-processor, or whether to use
            the default (monotonic calibration). Defaults to ``True``.
        evaluator (Evaluator | bool, optional): Evaluator, or whether to use the default (exact AUROC, F1).
            Defaults to ``True``.
        visualizer (Visualizer | bool, optional): Visualizer, or whether to use the default. Defaults to ``True``.

    Raises:
        ModuleNotFoundError: If MONAI is missing; names the extra that brings it.
        ValueError: If options do not fit together, or the U-Net cannot halve images of this size.
        TypeError: If the post-processor is one for scores of another kind.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_mediclip import AnoDDPM, MedicalFolder
        >>> model = AnoDDPM((64, 64), (16, 32, 64), 1, (False, False, True), wavelength=16, octaves=4)  # doctest: +SKIP
        >>> datamodule = MedicalFolder("datasets/sample", k_shot=16)  # doctest: +SKIP
        >>> Engine(max_steps=1000).train(model, datamodule=datamodule)  # doctest: +SKIP
    """

    MAX_STEPS = 37_500
    SCORES = "probability"
    TRAINING_PART = "network"  # its average predicts
    TRAINING_OPTIONS = FewShotModule.TRAINING_OPTIONS | {"train_timesteps", "views", "ema_decay", "learning_rate"}

    model: AnoDDPMModel

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: Sequence[int] = (128, 128, 256, 256, 512, 512),
        residual_blocks: int = 2,
        attention: Sequence[bool] = (False, False, False, True, True, True),
        heads: int = 2,
        wavelength: float = 64.0,
        octaves: int = 6,
        persistence: float = 0.8,
        timesteps: int = 1000,
        train_timesteps: int = 800,
        partial_steps: int = 250,
        sampling_steps: int | None = None,
        views: int = 8,
        ema_decay: float = 0.9999,
        learning_rate: float = 1e-4,  # noqa: ARG002  # a hyper-parameter, read in configure_optimizers
        seed: int | None = None,  # noqa: ARG002  # a hyper-parameter, read as used_seed
        pre_processor: PreProcessor | bool = True,
        post_processor: CalibrationPostProcessor | PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        _check_numbers(timesteps, train_timesteps, partial_steps, views, wavelength, octaves)
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = AnoDDPMModel(
            (image_size[0], image_size[1]),
            channels,
            residual_blocks,
            attention,
            heads,
            Scales(wavelength, octaves, persistence),
            timesteps,
            partial_steps,
            sampling_steps,
            ema_decay,
            self.used_seed,
        )

    @property
    def default_trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that hold unless the user gives others; gradients are clipped as in the official code."""
        return {"max_steps": self.MAX_STEPS, "log_every_n_steps": 1, "gradient_clip_val": 1.0}

    def training_step(self, batch: ImageBatch, batch_idx: int = 0, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Tell the noise of moved views at random times (paper, section 3.1)."""
        del args, kwargs
        number, generator = self.hparams["views"], self.generator_of_batch(batch_idx)
        images = draw_views(to_grey(in_range(batch.image)), number, MOVES, generator)
        times = torch.randint(self.hparams["train_timesteps"], (number,), generator=generator)
        permutations = draw_permutations(number, generator)
        loss = self.model.denoising_loss(images, times.to(self.device), permutations.to(self.device))
        return self.checked_loss(loss, number)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Average the weights after each step of the optimizer."""
        super().on_train_batch_end(*args, **kwargs)
        if self.global_step > self.model.average.n_averaged:
            self.model.average.update_parameters(self.model.network)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW without decay and without a schedule, as in the official code."""
        return torch.optim.AdamW(self.model.network.parameters(), lr=self.hparams["learning_rate"], weight_decay=0.0)

    def validation_step(self, batch: ImageBatch, batch_idx: int, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Reconstruct a batch, which takes many steps, and show them."""
        del args, kwargs
        title = f"reconstructing batch {batch_idx + 1}" if self.shows_progress else None
        steps = self.hparams["sampling_steps"] or self.hparams["partial_steps"]
        with progress_bar(title, steps, unit="step") as progress:
            return batch.update(**self.model(batch.image, progress.update)._asdict())

    test_step = predict_step = validation_step  # type: ignore[assignment]  # each is declared differently

    def exporting(self, form: str) -> Any:
        """Refuse graphs of a diffusion that adds noise at each step: the graph has no noise but the first."""
        if form != "PyTorch" and self.hparams["sampling_steps"] is None:
            msg = (
                f"An export to {form} has no new noise, and sampling_steps is null, which adds some in each step. "
                "Train with a number of steps, such as --model.sampling_steps 25, or export with --export_type torch."
            )
            raise ValueError(msg)
        return super().exporting(form)


def _check_numbers(
    timesteps: int, train_timesteps: int, partial_steps: int, views: int, wavelength: float, octaves: int
) -> None:
    """Refuse options that do not fit together."""
    if not partial_steps <= train_timesteps <= timesteps:
        msg = (
            f"partial_steps={partial_steps}, train_timesteps={train_timesteps}, timesteps={timesteps}: each must be at "
            "most the next, or images would be reconstructed from noise that was never trained."
        )
        raise ValueError(msg)
    if views < 1 or octaves < 1 or wavelength <= 0:
        msg = f"views={views}, octaves={octaves}, wavelength={wavelength}: all must be above 0."
        raise ValueError(msg)
