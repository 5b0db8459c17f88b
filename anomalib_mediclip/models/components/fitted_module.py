# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Base of the models that learn by themselves first, and then describe the support set by statistics.

The scores of such a model are distances from statistics of the support set: a Gaussian, a memory bank. These follow
from the weights and the support images, so they are computed when the training ends. Checkpoints that are written
before that hold none.
"""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from anomalib.data import ImageBatch
from lightning import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_mediclip.data.dataset import image_paths
from anomalib_mediclip.data.duplicates import content_hash
from anomalib_mediclip.encoders.weights import state_hash
from anomalib_mediclip.models.components.expected_warnings import ExpectedWarnings
from anomalib_mediclip.models.components.few_shot_module import FewShotModule
from anomalib_mediclip.models.components.fitted_state import FittedState
from anomalib_mediclip.models.components.support_methods import LARGEST_SUPPORT, SupportMethods, evenly_chosen

STATISTICS = "model.statistics."  # prefix in the state
LARGEST_SAVED = 1_000_000_000  # bytes of statistics that go into a checkpoint
LARGEST_EXPORTED = 2_000_000_000  # bytes; ONNX files cannot hold more
END_OF_EPOCH = -1  # as Lightning has it
EXPECTED = r"Found \d+ module\(s\) in eval mode"


class FittedModule(SupportMethods, FewShotModule):
    """Few-shot model whose ``model`` has ``statistics`` of the support set and a method ``fit`` that computes them.

    ``model.fit(images, seed, title)`` gets the support images ``(k, 3, H, W)``, in evaluation mode and without
    gradients; ``title`` is that of a progress bar, None for no bar. In evaluation ``model(images, own)`` predicts;
    ``own`` ``(B,)`` holds the number of the support image that each image is or was painted on, -1 for other images,
    and is None outside of validation: nothing is unusual about an image that is in the statistics.

    Attributes:
        MAX_STEPS (int): Steps of a training for which the user gives no limit; the same for every size of the support
            set.
        SMALLER (str): What makes the statistics smaller, in words, for messages.
        support_hash (torch.Tensor): Hash of the support images that the statistics describe, uint8 of shape ``(16,)``;
            zeros where there are none.
    """

    SCORES = "distance"
    MAX_STEPS: ClassVar[int]
    SMALLER: ClassVar[str] = "fewer support images"
    DERIVED = (STATISTICS,)

    support_hash: torch.Tensor
    _support: torch.Tensor | None = None
    _support_numbers: dict[str, int] = {}  # noqa: RUF012  # replaced, never changed
    _fitted_weights: str = ""

    def __init__(self, *components: Any) -> None:
        super().__init__(*components)
        self.register_buffer("support_hash", torch.zeros(16, dtype=torch.uint8))

    @property
    def trains(self) -> bool:
        """Whether anything is trained before the statistics are computed; a control of the method trains nothing."""
        return True

    @property
    def default_trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that hold unless the user gives others."""
        return {"max_steps": self.MAX_STEPS, "log_every_n_steps": 1}

    # -- training ------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Shorten the training of a model that does not train to one epoch without steps."""
        super().setup(stage)
        if stage == TrainerFn.FITTING and not self.trains:
            self.trainer.fit_loop.max_epochs = 1
            self.trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self) -> None:
        """Read the support images."""
        super().on_train_start()
        self._read_support(self.training_set)

    def _read_support(self, dataset: Any) -> None:
        """Read the support images that the statistics describe from a training set."""
        paths = image_paths(dataset)
        chosen = evenly_chosen(len(paths), LARGEST_SUPPORT)
        self._support = torch.stack([self.transformed(dataset[index].image) for index in chosen])
        self._support_numbers = {paths[index]: number for number, index in enumerate(chosen)}

    @property
    def support(self) -> torch.Tensor:
        """Support images ``(k, 3, H, W)`` in [0, 1], on the CPU, from the start of a training to its end."""
        assert self._support is not None, "a training starts with on_train_start"
        return self._support

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> int | None:
        """End the epoch before its first step where nothing is trained."""
        del args, kwargs
        return None if self.trains else END_OF_EPOCH

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule; none where nothing is trained."""
        return self.make_optimizer() if self.trains else []  # Lightning warns of None

    @abstractmethod
    def make_optimizer(self) -> Any:
        """Return the optimizer and its schedule, as Lightning takes them."""

    def sgd_with_cosine(self, weight_decay: float = 0.0) -> dict[str, Any]:
        """Return SGD at the options ``learning_rate`` and ``momentum``, with one cycle of a cosine over all steps.

        Args:
            weight_decay (float, optional): L2 penalty. Defaults to ``0.0``.

        Returns:
            dict[str, Any]: Optimizer and schedule, as Lightning takes them.
        """
        options, steps = self.hparams, max(1, int(self.trainer.estimated_stepping_batches))
        optimizer = torch.optim.SGD(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=options["learning_rate"],
            momentum=options["momentum"],
            weight_decay=weight_decay,
        )
        cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return the callbacks of every model, after one that computes the statistics."""
        return [StatisticsFitter(), *super().configure_callbacks(), ExpectedWarnings(EXPECTED)]

    def fit_statistics(self) -> None:
        """Compute the statistics of the support set with the weights as they are, unless they are there already."""
        weights = self._hash_weights(self.state_dict())
        if weights == self._fitted_weights and self.model.statistics.nbytes:
            return
        if self._support is None:  # a finished run was resumed: there is nothing to train, and nothing has started
            self.trainer.fit_loop.setup_data()
            self._read_support(self.training_set)
        was_training = self.training
        self.eval()
        with torch.no_grad():
            title = "describing the support set" if self.shows_progress else None
            self.model.fit(self.support.to(self.device), self.used_seed, title)
        self.train(was_training)
        self.support_hash.copy_(_hash_of_files(self._support_numbers))
        self._fitted_weights = self._hash_weights(self.state_dict())

    def _hash_weights(self, state: dict[str, torch.Tensor]) -> str:
        """Return the hash of the weights that the statistics follow from."""
        own = {name: value for name, value in state.items() if name.startswith("model.")}
        return state_hash({name: value for name, value in own.items() if not name.startswith(STATISTICS)})

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Predict painted support images; each is compared with the other images of the support set."""
        del args, kwargs
        numbers = [self._support_numbers.get(path, -1) for path in batch.image_path or []]
        own = torch.tensor(numbers, device=self.device) if self._support_numbers and numbers else None
        return batch.update(**self.model(batch.image, own)._asdict())

    def teardown(self, stage: str) -> None:
        """Free the support images."""
        super().teardown(stage)
        self._support, self._support_numbers = None, {}

    # -- prediction, checkpoints and exports ---------------------------------------------------------------------------

    def on_test_start(self) -> None:
        """Make sure that there are statistics."""
        super().on_test_start()
        self._complete_statistics()

    on_predict_start = on_test_start

    def on_validation_start(self) -> None:
        """Outside of a training, describe the support set again: its images must be told from others."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._complete_statistics(anew=True)

    def _complete_statistics(self, anew: bool = False) -> None:
        """Compute statistics that were too large for the checkpoint from the support set of the data module.

        Raises:
            ValueError: If they are needed, and there is no data module, or it has another support set.
        """
        if self.model.statistics.nbytes and not anew:
            return
        self._check_is_fitted()
        dataset = getattr(getattr(self.trainer, "datamodule", None), "train_data", None)
        if dataset is not None:
            self._read_support(dataset)
        if torch.equal(_hash_of_files(self._support_numbers), self.support_hash.cpu()):
            self._fitted_weights = ""
            self.fit_statistics()
            return
        found = "the support set given here is another one" if self._support_numbers else "there is none here"
        self._support, self._support_numbers = None, {}
        if not self.model.statistics.nbytes:
            msg = (
                f"{self._too_large('a checkpoint', LARGEST_SAVED)} They are computed again from the support set, but "
                f"{found}. Test with --data, data.k_shot and data.seed as in training, or train with {self.SMALLER}."
            )
            raise ValueError(msg)

    def _check_is_fitted(self) -> None:
        """Refuse a model that never saw a support set."""
        if not self.support_hash.any():
            msg = (
                f"This {self.name} has no statistics of a support set: it was not trained, or its checkpoint was "
                "written in the middle of a training. Train it, or resume with `anomalib train --ckpt_path`."
            )
            raise ValueError(msg)

    def _too_large(self, what: str, limit: int) -> str:
        return f"The statistics of {self.name} are larger than the {limit / 1e9:.0f} GB that fit into {what}."

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out statistics of other weights than those that are saved, and statistics that are too large."""
        state = checkpoint["state_dict"]
        statistics: FittedState = self.model.statistics
        own = bool(self._fitted_weights) and self._hash_weights(state) == self._fitted_weights
        # callbacks that average weights copied the model before there were statistics
        names = {f"{STATISTICS}{name}": getattr(statistics, name) for name in statistics.CONTENT}
        saved = own and statistics.nbytes <= LARGEST_SAVED
        state.update({name: value if saved else value[:0] for name, value in names.items()})
        state["support_hash"] = self.support_hash if own else torch.zeros_like(self.support_hash)
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note to which weights the statistics of a checkpoint belong."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        self._fitted_weights = self._hash_weights(state) if state["support_hash"].any() else ""

    def exporting(self, form: str) -> Any:
        """Refuse to export without statistics, and with more than a file can hold."""
        self._check_is_fitted()
        if not self.model.statistics.nbytes or (form != "PyTorch" and self.model.statistics.nbytes > LARGEST_EXPORTED):
            limit = LARGEST_EXPORTED if self.model.statistics.nbytes else LARGEST_SAVED
            where = f"an export to {form}" if self.model.statistics.nbytes else "a checkpoint"
            msg = f"{self._too_large(where, limit)} Train with {self.SMALLER}, and export again."
            raise ValueError(msg)
        return super().exporting(form)


class StatisticsFitter(Callback):
    """Has the statistics computed when a training ends, and before its validations."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Compute the statistics of the weights that are about to be validated."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            pl_module.fit_statistics()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Compute the statistics of the weights that remain, which a callback may have averaged."""
        del trainer
        pl_module.fit_statistics()

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Compute the statistics of a run that was killed after its last step, and resumed without validation."""
        del trainer
        if not pl_module.model.statistics.nbytes:
            pl_module.fit_statistics()


def _hash_of_files(paths: Iterable[str]) -> torch.Tensor:
    """Return the hash of the content of files as 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(content_hash(path))
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
