# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Few-shot protocol that all models of the plugin share, whatever they learn.

A training runs for a fixed number of epochs, and its last weights are the result. The synthetic validation set
calibrates them when the training ends. A run stops when its loss is not finite, resumes to the weights of an
uninterrupted one, and leaves a record of its data, versions and metrics.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer, Visualizer
from lightning import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, Normalize, Resize

from anomalib_mediclip.data.foreign import read_as_ours
from anomalib_mediclip.evaluation import MedicalEvaluator
from anomalib_mediclip.evaluation.calibration import POST_PROCESSORS, CalibrationPostProcessor, ScoreKind
from anomalib_mediclip.export.mixin import ExportMethods
from anomalib_mediclip.host.progress_bar import ImageCount
from anomalib_mediclip.host.resuming import begin_next_epoch
from anomalib_mediclip.models.components.calibrator import Calibrator
from anomalib_mediclip.models.components.checkpoint import describe_options
from anomalib_mediclip.models.components.checkpoint_methods import CheckpointMethods, complete_state
from anomalib_mediclip.models.components.pre_processing import ExportablePreProcessor, transform_of
from anomalib_mediclip.models.components.time_estimate import TimeEstimate
from anomalib_mediclip.models.components.training_record import TestRecorder, warn_of_other_display
from anomalib_mediclip.prediction.folder import FullDepthImages, PredictionDataset, prediction_loader, results_within
from anomalib_mediclip.prediction.pictures import MedicalVisualizer
from anomalib_mediclip.prediction.review_page import ReviewPage
from anomalib_mediclip.prediction.run_report import RunReport
from anomalib_mediclip.prediction.table import PredictionTable
from anomalib_mediclip.prediction.volume_results import VolumeResults
from anomalib_mediclip.seeds import generator_of, used_seed

IMAGE_SIZE = (224, 224)  # pixels, of models without an option ``image_size``
END_OF_EPOCH = -1  # as Lightning has it


class FewShotModule(CheckpointMethods, ExportMethods, AnomalibModule):
    """Base of the plugin's models: a subclass has a ``model``, a ``training_step`` and ``configure_optimizers``.

    A model is declared as ``class Method(FewShotModule, AnomalibModule)``: anomalib finds models among the direct
    subclasses of ``AnomalibModule``. In training its ``model`` returns whatever the loss needs; otherwise it returns an
    ``InferenceBatch`` with raw scores of the kind ``SCORES``. Images are RGB in [0, 1], and every normalisation is part
    of the model.

    Args:
        pre_processor (nn.Module | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (nn.Module | bool, optional): Post-processor, or whether to use the default (monotonic
            calibration). Defaults to ``True``.
        evaluator (Evaluator | bool, optional): Evaluator, or whether to use the default (exact AUROC, F1).
            Defaults to ``True``.
        visualizer (Visualizer | bool, optional): Visualizer, or whether to use the default. Defaults to ``True``.

    Raises:
        TypeError: If the post-processor is one for scores of another kind.

    Attributes:
        MAX_EPOCHS (int): Epochs of a run for which the user gives no limit.
        SCORES (ScoreKind): Kind of the scores of such models; see :attr:`scores`.
        LEARNS_REAL_ANOMALIES (bool): Whether a training may get real anomalies with their masks in place of normal
            images; see :class:`~anomalib_mediclip.data.auxiliary.AuxiliaryData`.
        used_seed (int): Seed of the initial weights and of everything drawn in training: the option ``seed``; where
            that is None the global seed, or 0 if there is none.
        prediction_path (Path | None): Image or folder to predict when the engine is given no data;
            ``anomalib predict --data FOLDER`` sets it.
        results_root (Path | None): Folder below which the engine writes; it is not predicted where it lies in the
            predicted folder. ``Engine.predict`` sets it.

    Example:
        >>> from anomalib_mediclip import MediCLIP
        >>> issubclass(MediCLIP, FewShotModule), MediCLIP in AnomalibModule.__subclasses__()
        (True, True)
    """

    MAX_EPOCHS: ClassVar[int]
    SCORES: ClassVar[ScoreKind] = "probability"
    LEARNS_REAL_ANOMALIES: ClassVar[bool] = False

    model: Any  # nn.Module, whose parts are not declared here
    prediction_path: Path | None = None
    results_root: Path | None = None

    def __init__(
        self,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        for name, value in self.hparams.items():  # `anomalib benchmark` gives OmegaConf's lists and mappings
            self.hparams[name] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if isinstance(post_processor, CalibrationPostProcessor) and self.scores != post_processor.SCORES:
            msg = (
                f"{type(post_processor).__name__} takes scores that are a {post_processor.SCORES}, and those of "
                f"{type(self).__name__} are a {self.scores}. "
                f"Use anomalib_mediclip.evaluation.{POST_PROCESSORS[self.scores].__name__}, with the same arguments."
            )
            raise TypeError(msg)
        self.used_seed = used_seed(self.hparams.get("seed"))
        self.has_initial_weights = True
        self.register_load_state_dict_pre_hook(complete_state)
        self._unchecked_losses: dict[str, tuple[torch.Tensor, str, str]] = {}

    @property
    def scores(self) -> ScoreKind:
        """Kind of the model's scores, from which the default post-processor follows."""
        return self.SCORES

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that the model computes on."""
        height, width = self.hparams.get("image_size", IMAGE_SIZE)
        return height, width

    # -- training ------------------------------------------------------------------------------------------------------

    @property
    def trains(self) -> bool:
        """Whether anything is trained; the control of a method, for example, ends before its first step."""
        return True

    @abstractmethod
    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Compute the loss of a batch of normal images, and hand it through :meth:`checked_loss`."""

    def setup(self, stage: str) -> None:
        """Follow a global seed that was set after the model was made, if the model was given none.

        Data modules of anomalib are made to read images as those of this package do. Where nothing is trained, the run
        is shortened to one epoch without steps.
        """
        super().setup(stage)
        if stage == TrainerFn.FITTING and not self.trains:
            self.trainer.fit_loop.max_epochs = 1
            self.trainer.fit_loop.epoch_loop.max_steps = -1
        read_as_ours(getattr(self.trainer, "datamodule", None))
        seed = used_seed(self.hparams.get("seed"))
        if stage == TrainerFn.FITTING and "seed" in self.hparams and seed != self.used_seed:
            if self.has_initial_weights:
                self.begin_as(type(self)(**{**self.hparams, "seed": seed}))
            self.used_seed = seed

    def begin_as(self, fresh: Any) -> None:
        """Take the initial weights of another model of this class.

        Args:
            fresh (Any): Model that was just made.
        """
        self.load_state_dict(fresh.state_dict())

    def on_fit_start(self) -> None:
        """Check the pre-processor."""
        self.has_initial_weights = False
        transform = transform_of(self.pre_processor)
        if transform is not None and extract_transforms_by_type(transform, Normalize):
            msg = (
                f"{type(self).__name__} takes images in [0, 1] and normalises inside the model. "
                "Remove Normalize from the pre-processor."
            )
            raise ValueError(msg)
        if self.input_size is not None and tuple(self.input_size) != self.image_size:
            given = tuple(self.input_size)
            msg = f"The pre-processor resizes to {given}, the model expects image_size={self.image_size}."
            raise ValueError(msg)

    def on_train_start(self) -> None:
        """Begin the next epoch where a run is resumed that counts steps."""
        super().on_train_start()
        begin_next_epoch(self.trainer)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> int | None:
        """End the epoch before its first step where nothing is trained."""
        del args, kwargs
        return None if self.trains else END_OF_EPOCH

    def generator_of_batch(self, batch_idx: int) -> torch.Generator:
        """Return the source of what a training step draws: a resumed run draws what an uninterrupted one would.

        Each batch of an accumulated step draws its own, and so does each process. Where there is one batch in a step
        and one process, the draws are those of the step.

        Args:
            batch_idx (int): Number of the batch in its epoch.

        Returns:
            torch.Generator: Generator on the CPU, so that the draws are the same on every device.
        """
        batch_of_step = batch_idx % self.trainer.accumulate_grad_batches
        return generator_of(self.used_seed, self.global_step, batch_of_step, self.global_rank)

    def checked_loss(self, loss: torch.Tensor, batch_size: int, cure: str = "", name: str = "loss") -> torch.Tensor:
        """Log a loss of a training step, and stop the run if it is not finite.

        The value is read when the next step, the epoch or a checkpoint needs it. Reading it at once would make a GPU
        finish first.

        Args:
            loss (torch.Tensor): Scalar.
            batch_size (int): Number of images in the batch.
            cure (str, optional): What the user can do about a loss that is not finite, in whole sentences. Defaults to
                ``""``: lower the learning rate, or use another precision.
            name (str, optional): Name of the loss, for models that have several. Defaults to ``"loss"``.

        Returns:
            torch.Tensor: The loss.

        Raises:
            FloatingPointError: If this loss was not finite in the step before.
        """
        self._check_loss(name)
        if not cure:
            cure = f"Lower --model.learning_rate ({self.hparams['learning_rate']}), or use --trainer.precision 32."
        self._unchecked_losses[name] = loss.detach(), f"step {self.global_step} (epoch {self.current_epoch})", cure
        self.log(f"train_{name}", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=batch_size)
        return loss

    def on_train_epoch_end(self) -> None:
        """Read the losses of the last step."""
        self._check_losses()

    def _check_losses(self) -> None:
        """Stop the run if a loss that was put aside is not finite."""
        for name in list(self._unchecked_losses):
            self._check_loss(name)

    def _check_loss(self, name: str) -> None:
        """Stop the run if this loss was put aside and is not finite."""
        unchecked = self._unchecked_losses.pop(name, None)
        if unchecked is None or torch.isfinite(unchecked[0]):
            return
        loss, step, cure = unchecked
        written = getattr(self.trainer.checkpoint_callback, "best_model_path", "") or "none yet"
        msg = f"The {name} is {loss.item()} at {step}; training stops. The last checkpoint, {written}, is kept. {cure}"
        raise FloatingPointError(msg)

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict a batch of the synthetic validation set."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())

    def on_test_start(self) -> None:
        """Say if images are shown otherwise than in the training."""
        warn_of_other_display(self.training_record)

    # -- prediction ----------------------------------------------------------------------------------------------------

    def on_predict_start(self) -> None:
        """Say if images are shown otherwise than in the training."""
        warn_of_other_display(self.training_record)

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of ``prediction_path``.

        Lightning asks for it after the checkpoint has been loaded, so the pre-processor is that of the checkpoint.

        Raises:
            ValueError: If there is no path.
        """
        if self.prediction_path is None:
            msg = "There is nothing to predict: give Engine.predict a data_path, dataloaders or a datamodule."
            raise ValueError(msg)
        path, transform = self.prediction_path, transform_of(self.pre_processor)
        return prediction_loader(path, self.image_size, transform, left_out=self._results_within(path))

    def image_loader(self, path: str | Path) -> DataLoader:
        """Return a loader of images one at a time, in their own size; ``Engine.predict(data_path=path)`` takes it.

        Args:
            path (str | Path): Image, slice, volume or folder.

        Returns:
            DataLoader: Loader in natural order of the files.

        Raises:
            FileNotFoundError: If there is no such file or folder.
            ValueError: If the folder holds no image.
        """
        dataset = PredictionDataset(path, self.image_size, left_out=self._results_within(path))
        return DataLoader(dataset, collate_fn=ImageBatch.collate)

    def _results_within(self, path: str | Path) -> Path | None:
        """Return the folder of results that lies in a folder to predict."""
        return None if self.results_root is None else results_within(path, self.results_root, self.name)

    # -- properties and components that anomalib asks for --------------------------------------------------------------

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that always hold: no validation before training, it would feed the calibration."""
        return {"num_sanity_val_steps": 0}

    @property
    def default_trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that hold unless the user gives others; see :mod:`anomalib_mediclip.host.engine`."""
        return {"max_epochs": self.MAX_EPOCHS, "log_every_n_steps": 1}

    @property
    def learning_type(self) -> LearningType:
        """One-class: it learns from normal images. anomalib trains no model that calls itself few-shot."""
        return LearningType.ONE_CLASS

    def describe(self) -> dict[str, Any]:
        """Describe the model for its card.

        Returns:
            dict[str, Any]: Plain data by name.
        """
        return describe_options(self.hparams, self.TRAINING_OPTIONS)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return anomalib's callbacks and those of the plugin; anomalib's pre-processor must run first."""
        components = cast("Sequence[Callback]", super().configure_callbacks())
        # the table ends a run that has unreadable images
        results = [VolumeResults(), RunReport(), ReviewPage(), PredictionTable()]
        progress = [ImageCount(), TimeEstimate()]
        return [*components, Calibrator(), FullDepthImages(), *results, TestRecorder(), *progress]

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Return the default pre-processor: the whole image squashed to the input size, antialiased.

        Args:
            image_size (tuple[int, int] | None, optional): Height and width in pixels. Defaults to ``(224, 224)``.

        Returns:
            PreProcessor: Pre-processor without normalisation, which is part of the model.
        """
        size = tuple(image_size or IMAGE_SIZE)
        return ExportablePreProcessor(Resize(size, interpolation=InterpolationMode.BILINEAR, antialias=True))

    def configure_post_processor(self) -> PostProcessor:
        """Return the default post-processor: a strictly monotonic calibration of scores of this kind."""
        return POST_PROCESSORS[self.scores]()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Return the default evaluator: exact AUROC on raw scores and F1 at the calibrated threshold."""
        return MedicalEvaluator()

    @classmethod
    def configure_visualizer(cls) -> ImageVisualizer:
        """Return the default visualizer."""
        return MedicalVisualizer()
