# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Life cycle shared by the models of the plugin: a frozen encoder and little else that is learnt from a few images.

It is a mixin, not a subclass of ``AnomalibModule``: anomalib finds models among the direct subclasses of that class.
"""

import logging
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torchvision.transforms.v2 import InterpolationMode, Normalize, Resize

from anomalib_mediclip.evaluation import CalibrationPostProcessor, MedicalEvaluator
from anomalib_mediclip.export.hooks import ExportHooks
from anomalib_mediclip.models.components.checkpoint import check_model, describe_model
from anomalib_mediclip.models.components.encoder_precision import EncoderPrecision
from anomalib_mediclip.models.components.pre_processing import ExportablePreProcessor
from anomalib_mediclip.models.components.training_record import RecordHooks
from anomalib_mediclip.prediction.hooks import PredictionHooks
from anomalib_mediclip.prediction.pictures import MedicalVisualizer

logger = logging.getLogger(__name__)


class FewShotModule(PredictionHooks, RecordHooks, ExportHooks, EncoderPrecision):
    """Mixin for an ``AnomalibModule``, named before it among the bases.

    The hyper-parameters ``encoder``, ``weights`` and ``image_size`` describe the frozen encoder. The model's ``FROZEN``
    holds the prefixes of the modules that are never learnt and never saved, and its ``encoder_hash`` recognises their
    weights.

    Attributes:
        MAX_EPOCHS (int): Epochs of a run for which the user gives no limit.
        SETTINGS (tuple[str, ...]): Hyper-parameters that decide what map the learnt weights give.

    Example:
        >>> from anomalib.models.components import AnomalibModule
        >>> from anomalib_mediclip import MediCLIP
        >>> MediCLIP.__bases__ == (FewShotModule, AnomalibModule)
        True
        >>> MediCLIP in AnomalibModule.__subclasses__()
        True
    """

    MAX_EPOCHS: ClassVar[int]
    SETTINGS: ClassVar[tuple[str, ...]] = ("layers", "image_size")

    model: Any
    _resumed_from: str | None = None
    _limit_val_batches: int | float = 1.0
    _unchecked_loss: tuple[torch.Tensor, str, str] | None = None

    # -- training ------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Check the pre-processor, and remember whether the run was resumed."""
        transform = getattr(self.pre_processor, "transform", None)
        if transform is not None and extract_transforms_by_type(transform, Normalize):
            msg = (
                f"{type(self).__name__} takes images in [0, 1] and normalises inside the model. "
                "Remove Normalize from the pre-processor."
            )
            raise ValueError(msg)
        expected = tuple(self.hparams["image_size"])
        if self.input_size is not None and tuple(self.input_size) != expected:
            msg = f"The pre-processor resizes to {tuple(self.input_size)}, the model expects image_size={expected}."
            raise ValueError(msg)
        # Lightning wonders about the frozen encoder
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        self._resumed_from = str(self.trainer.ckpt_path) if self.trainer.ckpt_path else None
        self._limit_val_batches = self.trainer.limit_val_batches

    def on_train_epoch_start(self) -> None:
        """Validate in the last epoch only: validation calibrates the scores and decides nothing else."""
        self.trainer.limit_val_batches = self._limit_val_batches if self._calibrates_now() else 0

    def on_train_end(self) -> None:
        """Give the trainer back as it was."""
        self.trainer.limit_val_batches = self._limit_val_batches

    def checked_loss(self, loss: torch.Tensor, batch_size: int, cure: str) -> torch.Tensor:
        """Log the loss of a training step, and stop the run if it is not finite.

        It is looked at when the next step, the epoch or a checkpoint needs it: at once, a GPU would have to finish.

        Args:
            loss (torch.Tensor): Scalar.
            batch_size (int): Number of images in the batch.
            cure (str): What the user can do about a loss that is not finite, in whole sentences.

        Returns:
            torch.Tensor: The loss.

        Raises:
            FloatingPointError: If the loss of the step before is not finite.
        """
        self._check_loss()
        self._unchecked_loss = loss.detach(), f"step {self.global_step} (epoch {self.current_epoch})", cure
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=batch_size)
        return loss

    def on_train_epoch_end(self) -> None:
        """Look at the loss of the last step."""
        self._check_loss()

    def _check_loss(self) -> None:
        """Stop the run if the loss that was put aside is not finite."""
        unchecked, self._unchecked_loss = self._unchecked_loss, None
        if unchecked is None or torch.isfinite(unchecked[0]):
            return
        loss, step, cure = unchecked
        msg = (
            f"The loss is {loss.item()} at {step}; training stops. "
            f"The last checkpoint, {self._last_checkpoint()}, is kept. {cure}"
        )
        raise FloatingPointError(msg)

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict a batch of the synthetic validation set.

        Args:
            batch (ImageBatch): Batch of images.
            *args (Any): Not used.
            **kwargs (Any): Not used.

        Returns:
            STEP_OUTPUT: The batch with predictions.
        """
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what was learnt, and by what the frozen encoder is recognised, but not the encoder itself.

        Args:
            checkpoint (dict[str, Any]): Checkpoint to be written, changed in place.

        Raises:
            FloatingPointError: If the loss of the last step is not finite; nothing is written then.
        """
        self._check_loss()
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if not name.startswith(self._not_saved)
        }
        checkpoint["frozen_encoder"] = self._description()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen encoder back under what was learnt, after checking that it is the same one.

        Args:
            checkpoint (dict[str, Any]): Checkpoint that was read, changed in place.

        Raises:
            ValueError: If the checkpoint was trained on another encoder, or with settings that give other maps.
        """
        if self._is_retest_after_resuming():
            logger.warning("Testing the weights just trained, not those of %s it was resumed from.", self._resumed_from)
            checkpoint["state_dict"] = self.state_dict()
            return
        super().on_load_checkpoint(checkpoint)
        check_model(checkpoint.get("frozen_encoder"), self._description(), self.training_record.get("versions"))
        checkpoint["state_dict"].update(
            {name: value for name, value in self.state_dict().items() if name.startswith(self._not_saved)}
        )

    @property
    def _not_saved(self) -> tuple[str, ...]:
        """Prefixes of the state that checkpoints leave out: the frozen encoder, and the evaluator.

        Metrics of a user's own evaluator may have state that the default evaluator does not expect.
        """
        return (*(f"model.{prefix}" for prefix in self.model.FROZEN), "evaluator.")

    def _description(self) -> dict[str, Any]:
        """Describe this model for its checkpoints."""
        return describe_model(self.name, self.hparams, self.model.encoder_hash, self.SETTINGS)

    def _is_retest_after_resuming(self) -> bool:
        """Tell whether anomalib's ``train`` is about to test the checkpoint that it resumed from."""
        trainer = self._trainer
        if trainer is None or self._resumed_from is None or trainer.state.fn != TrainerFn.TESTING:
            return False
        return self._resumed_from == str(trainer.ckpt_path)

    def _last_checkpoint(self) -> str:
        """Return where the last checkpoint lies."""
        callback = self.trainer.checkpoint_callback
        return getattr(callback, "best_model_path", "") or "none yet"

    def _calibrates_now(self) -> bool:
        """Tell whether this epoch is the last, or the user follows the validation metrics."""
        trainer: Any = self.trainer
        # with these callbacks every epoch may be the last
        followed = any(isinstance(callback, (EarlyStopping, Timer)) for callback in trainer.callbacks)
        if followed or trainer.check_val_every_n_epoch != 1:
            return True
        if trainer.max_epochs not in (None, -1) and self.current_epoch + 1 >= trainer.max_epochs:
            return True
        return trainer.max_steps != -1 and self.global_step + trainer.num_training_batches >= trainer.max_steps

    # -- what anomalib asks of a model ---------------------------------------------------------------------------------

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that always hold: no validation before training, it would feed the calibration."""
        return {"num_sanity_val_steps": 0}

    def default_trainer_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return trainer arguments that hold unless the user gives others; see :mod:`anomalib_mediclip.host.engine`.

        Args:
            given (Mapping[str, Any]): The user's trainer arguments.

        Returns:
            dict[str, Any]: Trainer arguments.
        """
        del given
        return {"max_epochs": self.MAX_EPOCHS, "log_every_n_steps": 1}

    @property
    def learning_type(self) -> LearningType:
        """One-class: it learns from normal images. anomalib trains no model that calls itself few-shot."""
        return LearningType.ONE_CLASS

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Return the default pre-processor: the whole image squashed to the input size, antialiased.

        Args:
            image_size (tuple[int, int] | None, optional): Height and width in pixels. Defaults to ``(224, 224)``.

        Returns:
            PreProcessor: Pre-processor without normalisation, which is part of the model.
        """
        size = tuple(image_size or (224, 224))
        return ExportablePreProcessor(Resize(size, interpolation=InterpolationMode.BILINEAR, antialias=True))

    def configure_post_processor(self) -> PostProcessor:
        """Return the default post-processor, a strictly monotonic calibration."""
        return CalibrationPostProcessor()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Return the default evaluator: exact AUROC on raw scores and F1 at the calibrated threshold."""
        return MedicalEvaluator()

    @classmethod
    def configure_visualizer(cls) -> ImageVisualizer:
        """Return the default visualizer."""
        return MedicalVisualizer()
