# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Base of the models that learn a few weights around a frozen encoder.

Their checkpoints leave the encoder out and recognise it by a hash. The encoder may compute in bfloat16, and INT8
exports quantise it alone.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType
from lightning import Callback
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import nn
from torchmetrics import Metric

from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers, native_bfloat16
from anomalib_mediclip.encoders.weights import weights_hash
from anomalib_mediclip.export.quantization import (
    calibration_images,
    compress_weights,
    painted_images,
    quantize,
    quantize_accurately,
    support_images,
)
from anomalib_mediclip.host.checkpoint_io import read_checkpoint
from anomalib_mediclip.models.components.checkpoint import (
    ENCODER,
    check_encoder_hash,
    check_encoder_name,
    check_model,
    describe_encoder,
)
from anomalib_mediclip.models.components.expected_warnings import ExpectedWarnings
from anomalib_mediclip.models.components.feature_cache import FeatureRelease
from anomalib_mediclip.models.components.feature_methods import FeatureMethods
from anomalib_mediclip.models.components.few_shot_module import FewShotModule
from anomalib_mediclip.models.components.pre_processing import transform_of
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

logger = logging.getLogger(__name__)

EncoderPrecision = Literal["auto", "float32", "bfloat16"]


class FrozenEncoderModule(FeatureMethods, FewShotModule):
    """Few-shot model whose ``model`` has a frozen ``vision_encoder`` and perhaps further frozen parts.

    Its options include ``encoder``, ``weights`` and ``encoder_precision``. A subclass sets ``model`` and then calls
    :meth:`finish_encoder`.

    Attributes:
        FROZEN (tuple[str, ...]): Names of the parts of ``model`` that are never learnt, and so never saved. Each has a
            ``tower``, the module that may compute in bfloat16; everything around it stays in float32.
        EXPECTED_WARNINGS (tuple[str, ...]): Beginnings of Lightning's warnings that do not concern this model.
        encoder_hash (str): Hash of the weights of these parts as published.
    """

    FROZEN: ClassVar[tuple[str, ...]] = ("vision_encoder",)
    TRAINING_OPTIONS: ClassVar[frozenset[str]] = FewShotModule.TRAINING_OPTIONS | {
        # the hash and the name of the encoder are compared apart; its precision changes maps by rounding only
        "encoder",
        "weights",
        "encoder_precision",
    }

    EXPECTED_WARNINGS: ClassVar[tuple[str, ...]] = (r"Found \d+ module\(s\) in eval mode",)

    encoder_hash: str
    _bfloat16_towers: Bfloat16Towers | None = None
    _kept_encoder: dict[str, Any] = {}  # noqa: RUF012  # replaced, never changed
    _logged_precision: str | None = None

    # -- frozen parts --------------------------------------------------------------------------------------------------

    def finish_encoder(self) -> None:
        """Hash the frozen parts as published, then make the vision encoder faster."""
        self.encoder_hash = self.hash_encoder()
        self.model.vision_encoder.prepare()

    def hash_encoder(self) -> str:
        """Return the hash of the weights of the frozen parts as they are."""
        parts = self._frozen_parts()
        # names of weights are hashed too: a model with one frozen part has always hashed that part by itself
        return weights_hash(parts[0] if len(self.FROZEN) == 1 else nn.ModuleList(parts))

    @property
    def frozen_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the frozen parts in the state of ``model``."""
        return tuple(f"{name}." for name in self.FROZEN)

    def _frozen_parts(self) -> list[Any]:
        """Return the frozen parts that this model has."""
        modules = dict(self.model.named_modules())
        return [modules[name] for name in self.FROZEN if name in modules]

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    @property
    def unsaved(self) -> tuple[str, ...]:
        """Prefixes of the state that checkpoints leave out, the frozen parts included."""
        return (*super().unsaved, *(f"model.{prefix}" for prefix in self.frozen_prefixes))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description by which the encoder is recognised."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[ENCODER] = describe_encoder(self.hparams, self.encoder_hash)

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse, besides what :class:`FewShotModule` refuses, a checkpoint that was trained on another encoder."""
        check_model(checkpoint, self.name)
        encoder = describe_encoder(self.hparams, self.encoder_hash)
        check_encoder_name(checkpoint, encoder)  # first: other options usually go with another encoder
        super().check_checkpoint(checkpoint)
        check_encoder_hash(checkpoint, encoder)

    @classmethod
    def options_of_checkpoint(cls, checkpoint_path: Path | str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options to use, and refuse another encoder; see :class:`CheckpointMethods`."""
        options = super().options_of_checkpoint(checkpoint_path, given)
        checkpoint = read_checkpoint(checkpoint_path, cls.checkpoint_safe_globals())
        check_encoder_name(checkpoint, {"name": options["encoder"]})
        return options

    def begin_as(self, fresh: Any) -> None:
        """Take the initial weights of another model, and its encoder: random weights differ with the seed."""
        super().begin_as(fresh)
        self.encoder_hash = fresh.encoder_hash

    def describe(self) -> dict[str, Any]:
        """Describe the model for its card, the encoder included."""
        encoder, weights = self.hparams["encoder"], self.hparams["weights"] or "random"
        named = {"frozen encoder": f"{encoder}, weights {weights}", "hash of the encoder": self.encoder_hash}
        return named | super().describe()

    # -- precision -----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Bring the encoder to its precision, for the time of a run on the device that is known now.

        Raises:
            ValueError: If the trainer's precision would cast the learnt weights too.
        """
        super().setup(stage)
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, HalfPrecision):
            msg = (
                f"--trainer.precision {plugin.precision} would cast the learned weights as well. Leave it out and use "
                "--model.encoder_precision bfloat16, which casts the frozen encoder only."
            )
            raise ValueError(msg)  # noqa: TRY004  # the user gave a wrong value
        averages = self.is_averaged()
        device = self.trainer.strategy.root_device.type
        self._cast_encoder(self._wants_bfloat16(device) and not averages)
        self._kept_encoder = {name: value.clone() for name, value in self._frozen_state().items()} if averages else {}
        precision = "float32" if self._bfloat16_towers is None else "bfloat16"
        if precision != self._logged_precision:
            logger.info("The frozen encoder computes in %s (--model.encoder_precision float32 or bfloat16).", precision)
        self._logged_precision = precision

    def teardown(self, stage: str) -> None:
        """Give the encoder its float32 weights back: exports and checkpoints hold its own weights."""
        super().teardown(stage)
        self._cast_encoder(False)
        self._restore_encoder()
        self._kept_encoder = {}

    def on_validation_epoch_start(self) -> None:
        """Give the encoder its own weights back, where a callback has just put an average in their place."""
        self._restore_encoder()

    def _restore_encoder(self) -> None:
        """Undo what averaging does to the frozen parts: the mean of equal numbers is rounded."""
        state = self._frozen_state() if self._kept_encoder else {}
        for name, value in state.items():
            value.copy_(self._kept_encoder[name])

    def _frozen_state(self) -> dict[str, Any]:
        """Return the tensors that are never learnt: those of the frozen parts, and buffers that are never saved."""
        saved = self.model.state_dict().keys()
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        return {
            name: value.detach()
            for name, value in tensors
            if name.startswith(self.frozen_prefixes) or name not in saved
        }

    @contextlib.contextmanager
    def float32_encoder(self) -> Iterator[None]:
        """Have the encoder in its own float32 weights for the time of a ``with`` block.

        Yields:
            None: Nothing.
        """
        cast = self._bfloat16_towers is not None
        self._cast_encoder(False)
        try:
            yield
        finally:
            self._cast_encoder(cast)

    def _wants_bfloat16(self, device: str) -> bool:
        """Tell whether the encoder shall compute in bfloat16 on a kind of device."""
        wanted: EncoderPrecision = self.hparams["encoder_precision"]
        if wanted == "auto":
            return self.model.vision_encoder.PREFERS_BFLOAT16 and native_bfloat16(device)
        if wanted not in ("float32", "bfloat16"):
            msg = f"encoder_precision={wanted!r}: use 'auto', 'float32' or 'bfloat16'."
            raise ValueError(msg)
        return wanted == "bfloat16"

    def is_averaged(self) -> bool:
        """Tell whether a callback averages weights: it does so with those of the encoder too."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # declared nowhere
        return any(isinstance(callback, StochasticWeightAveraging | WeightAveraging) for callback in callbacks)

    def _cast_encoder(self, to_bfloat16: bool) -> None:
        """Bring the encoder to bfloat16, or back to float32, if it is not there already."""
        if to_bfloat16 and self._bfloat16_towers is None:
            self._bfloat16_towers = Bfloat16Towers(self.towers)
        elif not to_bfloat16 and self._bfloat16_towers is not None:
            self._bfloat16_towers.restore()
            self._bfloat16_towers = None

    @property
    def towers(self) -> list[nn.Module]:
        """Modules of the frozen parts that may compute in bfloat16."""
        return [part.tower for part in self._frozen_parts()]

    # -- training ------------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return the callbacks of every model, and two that silence warnings about frozen parts and free features."""
        return [*super().configure_callbacks(), ExpectedWarnings(*self.EXPECTED_WARNINGS), FeatureRelease()]

    # -- export --------------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """Name of the model and of its encoder in messages."""
        return f"{super().title} ({self.hparams['encoder']})"

    @contextlib.contextmanager
    def exporting(self, form: str) -> Iterator[None]:
        """Export the encoder's own float32 weights; see :meth:`ExportMethods.exporting`."""
        with super().exporting(form), self.float32_encoder():
            yield

    def compress(
        self,
        graph: Any,
        compression_type: CompressionType | None,
        datamodule: AnomalibDataModule | None,
        metric: Metric | None,
        max_drop: float,
    ) -> Any:
        """Bring the encoder of an OpenVINO model to INT8; see :mod:`anomalib_mediclip.export.quantization`."""
        if compression_type == CompressionType.INT8:
            return compress_weights(graph, self.frozen_prefixes)
        support = self._support_images(datamodule)
        logger.info("Quantising on %d images of the support set and anomalies painted on them", len(support))
        images = calibration_images(support, self.painter())
        if compression_type == CompressionType.INT8_PTQ:
            return quantize(graph, images, self.frozen_prefixes)
        validation = painted_images(support, self.painter())
        return quantize_accurately(graph, images, self.frozen_prefixes, validation, metric, max_drop)

    def painter(self) -> MedicalAnomalyGenerator:
        """Return a generator of the anomalies that INT8 is calibrated on."""
        return MedicalAnomalyGenerator(seed=self.used_seed)

    def _support_images(self, datamodule: Any) -> list[Any]:
        """Return the images of the support set, resized; warn if it is not the one of the training."""
        datamodule.setup("fit")
        trained = self.training_record.get("data", {})
        given: str | None = getattr(datamodule, "support_set_hash", None)
        if trained.get("support_set_hash") not in (None, given):
            logger.warning(
                "--data has another support set than the training had (%s): give data.root, k_shot and seed as then",
                {key: value for key, value in trained.items() if not key.endswith("_hash")},
            )
        return support_images(datamodule.train_data, transform_of(self.pre_processor))
