# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What the models write into checkpoints and read from them.

A checkpoint holds what was learnt, the thresholds that belong to it, the options of the model, and the record of the
training. The frozen parts are left out.
"""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from anomalib.post_processing import PostProcessor
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_mediclip.encoders.weights import state_hash
from anomalib_mediclip.evaluation.calibration import describe_thresholds, expected_false_alarms_of
from anomalib_mediclip.host.checkpoint_io import read_checkpoint
from anomalib_mediclip.models.components.checkpoint import (
    MODEL,
    OPTIONS,
    check_arguments,
    check_given_options,
    check_model,
    check_options,
    check_run,
    describe_options,
)
from anomalib_mediclip.models.components.training_record import RECORD, describe_training, is_finished, read_test_record

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as CheckpointHooks
else:
    CheckpointHooks = object

logger = logging.getLogger(__name__)

POST_PROCESSOR = "post_processor."
OPTIMIZERS = "optimizer_states"  # key in checkpoints, of Lightning
LARGE_STATE = 100_000_000  # bytes


class CheckpointMethods(CheckpointHooks):
    """Methods of a model that concern its checkpoints.

    Attributes:
        TRAINING_OPTIONS (frozenset[str]): Options that matter in training only. A checkpoint is refused by a model
            that differs in any other option.
        OPTIONS_OF_A_RUN (tuple[str, ...]): Options among these that must not change when a run is resumed.
        DERIVED (tuple[str, ...]): Prefixes of state that follows from what was learnt.
        training_record (dict[str, Any]): Plain data: ``weights``, the hash of what was learnt; ``data``, ``versions``,
            ``epochs``, ``steps``, ``seed``; ``expected_false_alarms``, the share of normal images that the calibration
            expects to be called anomalous; and ``test``, the record of the test. Unknown facts are absent.
        calibrated_weights (str): Hash of the weights to which the thresholds belong.
        has_initial_weights (bool): Whether nothing was trained or loaded since the model was made.
        used_seed (int): Seed of the initial weights and of everything drawn in training.
    """

    TRAINING_OPTIONS: ClassVar[frozenset[str]] = frozenset({"seed"})
    OPTIONS_OF_A_RUN: ClassVar[tuple[str, ...]] = ()
    DERIVED: ClassVar[tuple[str, ...]] = ()

    training_record: dict[str, Any] = {}  # noqa: RUF012  # replaced, never changed
    calibrated_weights: str = ""
    has_initial_weights: bool = True
    used_seed: int = 0

    @property
    def unsaved(self) -> tuple[str, ...]:
        """Prefixes of the state that checkpoints leave out.

        Metrics of a user's own evaluator may have state that the default evaluator does not expect.
        """
        return ("evaluator.",)

    def hash_learnt(self, state: Mapping[str, torch.Tensor] | None = None) -> str:
        """Return the hash by which weights are recognised: that of all state that was learnt.

        Args:
            state (Mapping[str, torch.Tensor] | None, optional): State of such a model, such as that of a checkpoint.
                Defaults to ``None``: the present state.

        Returns:
            str: 32 hexadecimal digits.
        """
        ignored = (*self.unsaved, *self.DERIVED, POST_PROCESSOR, "pre_processor.")
        state = self.state_dict() if state is None else state
        return state_hash({name: value for name, value in state.items() if not name.startswith(ignored)})

    @property
    def is_calibrated(self) -> bool:
        """Whether the thresholds belong to the present weights; true of a model that looks for no thresholds."""
        processor = self.post_processor
        if not isinstance(processor, PostProcessor) or not processor.enable_thresholding:
            return True
        return not processor.image_threshold.isnan() and self.calibrated_weights == self.hash_learnt()

    # -- writing -------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the model's description and the record of its training, and leave out what is never learnt."""
        super().on_save_checkpoint(checkpoint)
        for key in ("state_dict", "current_model_state"):  # the second is of callbacks that average weights
            if key in checkpoint:
                checkpoint[key] = {n: value for n, value in checkpoint[key].items() if not n.startswith(self.unsaved)}
        for component in (self.pre_processor, self.post_processor, self.evaluator):
            # it is a part of the model: what it has as a callback would come back over what the model has
            checkpoint.get("callbacks", {}).pop(getattr(component, "state_key", None), None)
        if "seed" in checkpoint["hyper_parameters"]:
            checkpoint["hyper_parameters"]["seed"] = self.used_seed  # which may have been the global one
        checkpoint[MODEL] = self.name
        checkpoint[OPTIONS] = describe_options(self.hparams, self.TRAINING_OPTIONS)
        trainer = attached_trainer(self)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            weights = self.hash_learnt(checkpoint["state_dict"])
            checkpoint["state_dict"].update(self._thresholds_of(weights))
            self.training_record = describe_training(trainer) | {"weights": weights}
            alarms = expected_false_alarms_of(self.post_processor)
            if weights == self.calibrated_weights and alarms is not None:
                self.training_record["expected_false_alarms"] = alarms
            if is_finished(trainer, self.training_record) and _size(checkpoint.get(OPTIMIZERS)) > LARGE_STATE:
                checkpoint[OPTIMIZERS] = []  # the largest part of the file, which nothing but more training needs
        checkpoint[RECORD] = self.training_record

    def _thresholds_of(self, weights: str) -> dict[str, torch.Tensor]:
        """Return the state of the post-processor for weights; NaN, as before any validation, if it is of others."""
        if not isinstance(self.post_processor, PostProcessor):
            return {}
        own = weights == self.calibrated_weights
        return {
            POST_PROCESSOR + name: value.detach() if own else torch.full_like(value, float("nan"))
            for name, value in self.post_processor.named_buffers(recurse=False)
        }

    # -- reading -------------------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is one of this model."""
        super().on_load_checkpoint(checkpoint)
        self.check_checkpoint(checkpoint)
        self.training_record = checkpoint.get(RECORD, {})
        self.calibrated_weights = self.hash_learnt(checkpoint["state_dict"])
        trainer = attached_trainer(self)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            options = checkpoint["hyper_parameters"]
            check_run(options, {name: self.hparams[name] for name in self.OPTIONS_OF_A_RUN})
            self._continue_seed(options.get("seed", self.used_seed))
            if not checkpoint.get(OPTIMIZERS, True) and not is_finished(trainer, self.training_record):
                logger.warning(
                    "The checkpoint is the last one of a finished run, and holds no state of its optimizers, which is "
                    "larger than the model. Training goes on with new ones, not as if it had never ended."
                )

    def _continue_seed(self, started: int) -> None:
        """Resume with the seed that a run was started with, or say that another one is given."""
        if started == self.used_seed:
            return
        if self.hparams.get("seed") is None:
            self.used_seed = started
            return
        logger.warning("The run is resumed with model.seed %d; it was started with %d.", self.used_seed, started)

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that would give this model other maps than it had when it was trained.

        Args:
            checkpoint (dict[str, Any]): Checkpoint.

        Raises:
            ValueError: If it is of another model, or was trained under other options.
        """
        check_model(checkpoint, self.name)
        check_options(checkpoint, describe_options(self.hparams, self.TRAINING_OPTIONS))

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # as anomalib declares it
        cls, checkpoint_path: Path | str, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint, and the test record that lies beside it; see anomalib's method of this name.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or is none of this model.
            TypeError: If the model has no such argument.
        """
        check_arguments(cls, kwargs, inspect.signature(super().load_from_checkpoint).parameters)
        if "://" not in str(checkpoint_path):  # Lightning also downloads
            only = kwargs.get("weights_only", True)
            check_model(read_checkpoint(checkpoint_path, cls.checkpoint_safe_globals(), "cpu", only), cls.__name__)
        model: Any = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        model.add_test_record(checkpoint_path)
        return model

    def restore(self, checkpoint_path: Path | str) -> None:
        """Load a checkpoint into this model, whose options hold where the checkpoint leaves them free.

        Args:
            checkpoint_path (Path | str): File.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or is none of this model.
        """
        checkpoint = read_checkpoint(checkpoint_path, self.checkpoint_safe_globals())
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"])
        self.add_test_record(checkpoint_path)

    def add_test_record(self, checkpoint_path: Path | str) -> None:
        """Add the record of a test to that of the training, if it was made with these weights and thresholds.

        Args:
            checkpoint_path (Path | str): Checkpoint beside which the record may lie.
        """
        test = read_test_record(checkpoint_path, self.hash_learnt(), describe_thresholds(self.post_processor))
        self.training_record = {**self.training_record, "test": test}

    @classmethod
    def options_of_checkpoint(cls, checkpoint_path: Path | str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a checkpoint's model, with those that a user gives and may give.

        Args:
            checkpoint_path (Path | str): File.
            given (Mapping[str, Any]): Options that the user gives.

        Returns:
            dict[str, Any]: Constructor arguments.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged or of another model, or an option given is another than in training.
        """
        checkpoint = read_checkpoint(checkpoint_path, cls.checkpoint_safe_globals())
        check_model(checkpoint, cls.__name__)
        trained: dict[str, Any] = checkpoint["hyper_parameters"]
        check_given_options(trained, given, free=cls.TRAINING_OPTIONS)
        return {**trained, **given}


def complete_state(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Add to a state that is about to be loaded what checkpoints leave out, and leave out what the model has not.

    This is a hook for :meth:`torch.nn.Module.register_load_state_dict_pre_hook`.

    Args:
        module (Any): Model.
        state (dict[str, Any]): State, changed in place.
        prefix (str): Prefix of the model's names in the state.
    """
    module.has_initial_weights = False
    own = module.state_dict()
    for name in own:
        if name.startswith(module.unsaved):
            state.setdefault(prefix + name, own[name])
    if module.post_processor is None:
        for name in [name for name in state if name.startswith(prefix + POST_PROCESSOR)]:
            del state[name]


def _size(state: Any) -> int:
    """Return the size in bytes of the tensors in nested lists and dictionaries."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return sum(_size(part) for part in parts)


def attached_trainer(module: Any) -> Trainer | None:
    """Return the trainer of a module, None where there is none (Lightning raises).

    Args:
        module (Any): Model.

    Returns:
        Trainer | None: Trainer.
    """
    try:
        trainer: Trainer = module.trainer
    except RuntimeError:
        return None
    return trainer
