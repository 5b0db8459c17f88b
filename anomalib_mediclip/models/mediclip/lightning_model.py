# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP as a model of anomalib: life cycle only, the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2405.11315
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, PredictDataset
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer, Visualizer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, Normalize, Resize
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.evaluation import CalibrationPostProcessor, MedicalEvaluator
from anomalib_mediclip.io import has_transparency, is_deep, read_image, relative_names
from anomalib_mediclip.models.mediclip.anomaly_map import Aggregation
from anomalib_mediclip.models.mediclip.checkpoint import check_model, describe_model
from anomalib_mediclip.models.mediclip.loss import MediCLIPLoss
from anomalib_mediclip.models.mediclip.prompting import ABNORMAL_TOKENS, NORMAL_TOKENS, PromptType
from anomalib_mediclip.models.mediclip.torch_model import AdapterType, MediCLIPModel
from anomalib_mediclip.models.quiet import quiet
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator, SynthesisOptions
from anomalib_mediclip.visualization import MedicalVisualizer

logger = logging.getLogger(__name__)

MAX_EPOCHS = 200  # official code; the paper does not say
ONNX_OPSET = 18
MAX_SOURCES = 512  # support images kept in memory for CutPaste to cut from


class MediCLIP(AnomalibModule):
    """MediCLIP: few-shot anomaly detection from normal images and anomalies synthesised on them.

    The defaults are the paper's. ``configs/model/`` holds them as files, together with those of the official code and
    of the lite preset.

    Args:
        encoder (str, optional): Frozen encoder: an open_clip name, ``hf-hub:<repository>``, ``local-dir:<folder>`` or
            ``timm/<model>``. Defaults to ``"ViT-L-14-quickgelu"``.
        weights (str | None, optional): Weights of the encoder: a tag of open_clip, ``pretrained`` for a timm encoder,
            or the path of a checkpoint; null for random weights (tests only). Defaults to ``"openai"``.
        layers (Sequence[int], optional): Blocks whose patch features are used, counted from 1.
            Defaults to ``(12, 18, 24)``.
        image_size (tuple[int, int], optional): Height and width in pixels to which images are resized.
            Defaults to ``(224, 224)``.
        prompt (str, optional): ``learnable`` prompts, ``handcrafted`` templates, or two learnable vectors
            (``prototype``, the only kind for encoders without a text tower). Defaults to ``"learnable"``.
        context_length (int, optional): Number M of learnable words in a prompt. Defaults to ``8``.
        normal_tokens (Sequence[str], optional): Class tokens of normal prompts. Defaults to the paper's Table S1.
        abnormal_tokens (Sequence[str], optional): Class tokens of anomalous prompts. Defaults to the paper's Table S1.
        causal_text (bool, optional): Whether the text encoder runs under CLIP's causal mask; the official code drops
            it. Defaults to ``True``.
        adapter (str, optional): ``linear`` adapter for every block, or ``none`` (channel pooling), for the ablation of
            the paper's Table 4. Defaults to ``"linear"``.
        temperature (float, optional): Temperature tau of Eq. 2. Defaults to ``0.07``; the official code has ``1.0``.
        aggregation (str, optional): What is averaged over the blocks: the ``probability`` after the softmax (paper) or
            the cosine ``similarity`` before it (official code). Defaults to ``"probability"``.
        synthesis (SynthesisOptions | None, optional): Options of
            :class:`~anomalib_mediclip.synthesis.MedicalAnomalyGenerator`, as a mapping. Defaults to ``None``: the
            paper's three tasks with equal probability.
        learning_rate (float, optional): Learning rate of Adam. Defaults to ``1e-3``.
        seed (int, optional): Seed of the initial weights and of the synthesis. The support set is drawn by the data
            module's own seed. Defaults to ``0``.
        pre_processor (PreProcessor | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (PostProcessor | bool, optional): Post-processor, or whether to use the default (monotonic
            calibration). Defaults to ``True``.
        evaluator (Evaluator | bool, optional): Evaluator, or whether to use the default (exact AUROC, F1).
            Defaults to ``True``.
        visualizer (Visualizer | bool, optional): Visualizer, or whether to use the default. Defaults to ``True``.

    Raises:
        ValueError: If an option does not exist, or options do not go together.
        RuntimeError: If the encoder's weights cannot be downloaded.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_mediclip import MediCLIP, MedicalFolder
        >>> model = MediCLIP(
        ...     "timm/tf_efficientnet_lite0.in1k", "pretrained", layers=[3, 4, 5], prompt="prototype"
        ... )  # doctest: +SKIP
        >>> datamodule = MedicalFolder("datasets/sample", k_shot=16)  # doctest: +SKIP
        >>> Engine(max_epochs=10).train(model, datamodule=datamodule)  # doctest: +SKIP
    """

    model: MediCLIPModel
    anomaly_generator: MedicalAnomalyGenerator

    def __init__(
        self,
        encoder: str = "ViT-L-14-quickgelu",
        weights: str | None = "openai",
        layers: Sequence[int] = (12, 18, 24),
        image_size: tuple[int, int] = (224, 224),
        prompt: PromptType = "learnable",
        context_length: int = 8,
        normal_tokens: Sequence[str] = NORMAL_TOKENS,
        abnormal_tokens: Sequence[str] = ABNORMAL_TOKENS,
        causal_text: bool = True,
        adapter: AdapterType = "linear",
        temperature: float = 0.07,
        aggregation: Aggregation = "probability",
        synthesis: SynthesisOptions | None = None,
        learning_rate: float = 1e-3,  # noqa: ARG002  # a hyper-parameter, read in configure_optimizers
        seed: int = 0,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = MediCLIPModel(
            encoder=encoder,
            weights=weights,
            layers=layers,
            image_size=image_size,
            prompt=prompt,
            context_length=context_length,
            normal_tokens=normal_tokens,
            abnormal_tokens=abnormal_tokens,
            causal_text=causal_text,
            adapter=adapter,
            temperature=temperature,
            aggregation=aggregation,
            seed=seed,
        )
        self.anomaly_generator = MedicalAnomalyGenerator(**(synthesis or {}), seed=seed)
        self.loss = MediCLIPLoss()
        self._names: dict[str, str] = {}
        self._resumed_from: str | None = None
        self._limit_val_batches: int | float = 1.0

    # -- training ------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Check the pre-processor, and remember whether the run was resumed."""
        transform = getattr(self.pre_processor, "transform", None)
        if transform is not None and extract_transforms_by_type(transform, Normalize):
            msg = (
                "MediCLIP synthesises anomalies on images in [0, 1] and normalises inside the model. "
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

    def on_train_start(self) -> None:
        """Give the generator the support images that CutPaste cuts from."""
        dataset: Any = cast("DataLoader", self.trainer.train_dataloader).dataset
        step = -(-len(dataset) // MAX_SOURCES)
        self._names = relative_names(dataset.samples["image_path"])
        images = [dataset[index].image for index in range(0, len(dataset), step)]
        transform: Any = getattr(self.pre_processor, "transform", None)
        images = [transform(image) for image in images] if transform else images
        self.anomaly_generator.set_support_set([_in_range(image) for image in images])

    def on_train_epoch_start(self) -> None:
        """Validate in the last epoch only: validation calibrates the scores and decides nothing else."""
        self.trainer.limit_val_batches = self._limit_val_batches if self._calibrates_now() else 0

    def on_train_end(self) -> None:
        """Give the trainer back as it was."""
        self.trainer.limit_val_batches = self._limit_val_batches

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Synthesise anomalies on a batch of normal images and compute the loss (Eq. 3).

        Args:
            batch (ImageBatch): Batch of normal images.
            *args (Any): Not used.
            **kwargs (Any): Not used.

        Returns:
            STEP_OUTPUT: Loss.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        del args, kwargs
        names = [self._names[path] for path in batch.image_path or []]
        images, masks = self.anomaly_generator(_in_range(batch.image), names, self.current_epoch)
        loss = self.loss(self.model(images), masks.squeeze(1))
        if not torch.isfinite(loss):
            msg = (
                f"The loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}); training stops. "
                f"The last checkpoint, {self._last_checkpoint()}, is kept. Lower --model.learning_rate "
                f"({self.hparams['learning_rate']}), or use --trainer.precision 32."
            )
            raise FloatingPointError(msg)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images))
        return loss

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

    def on_predict_batch_start(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Read again what anomalib's own prediction data set reads otherwise: it saturates 16-bit images.

        Args:
            batch (ImageBatch): Batch of images.
            batch_idx (int): Number of the batch.
            dataloader_idx (int, optional): Number of the data loader. Defaults to ``0``.
        """
        del batch_idx
        loaders: Any = self.trainer.predict_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, list) else loaders
        if not isinstance(loader.dataset, PredictDataset):
            return
        for index, path in enumerate(batch.image_path or []):
            if is_deep(path) or has_transparency(path):
                images = cast("torch.Tensor", batch.image)
                images[index] = resize(read_image(path), list(images.shape[-2:]), antialias=True).to(images)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with the settings of the official code.

        Returns:
            torch.optim.Optimizer: Optimiser of prompts and adapters.

        Raises:
            ValueError: If nothing can be learnt.
        """
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not learnt:
            msg = "adapter='none' with prompt='handcrafted' leaves nothing to learn. Test it with `anomalib test`."
            raise ValueError(msg)
        return torch.optim.Adam(learnt, lr=self.hparams["learning_rate"], betas=(0.5, 0.999))

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what was learnt, and by what the frozen encoder is recognised, but not the encoder itself.

        Args:
            checkpoint (dict[str, Any]): Checkpoint to be written, changed in place.
        """
        super().on_save_checkpoint(checkpoint)
        self.model.keep_prompt_features()
        frozen = tuple(f"model.{prefix}" for prefix in self.model.FROZEN)
        checkpoint["state_dict"] = {
            name: value
            for name, value in checkpoint["state_dict"].items()
            # metrics of a user's own evaluator may have state that the default evaluator does not expect
            if not name.startswith((*frozen, "evaluator."))
        }
        checkpoint["frozen_encoder"] = describe_model(self.hparams, self.model.encoder_hash)

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
        check_model(checkpoint.get("frozen_encoder"), describe_model(self.hparams, self.model.encoder_hash))
        frozen = tuple(f"model.{prefix}" for prefix in self.model.FROZEN)
        checkpoint["state_dict"].update(
            {name: value for name, value in self.state_dict().items() if name.startswith((*frozen, "evaluator."))}
        )

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

    # -- export --------------------------------------------------------------------------------------------------------

    def to_onnx(  # type: ignore[override]  # as anomalib declares it
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Export to ONNX, with the first opset that the exporter needs no conversion for.

        Args:
            export_root (Path | str): Folder to write to.
            model_file_name (str, optional): Name of the file without extension. Defaults to ``"model"``.
            input_size (tuple[int, int] | None, optional): Fixed height and width of the input in pixels.
                Defaults to ``None``: any size.
            **kwargs (Any): Arguments of :func:`torch.onnx.export`.

        Returns:
            Path: The file.
        """
        kwargs.setdefault("opset_version", ONNX_OPSET)
        with quiet("onnx_ir", "onnxscript"):
            return super().to_onnx(export_root, model_file_name, input_size, **kwargs)

    # -- what anomalib asks of a model ---------------------------------------------------------------------------------

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that always hold: no validation before training, it would feed the calibration."""
        return {"num_sanity_val_steps": 0}

    @property
    def default_trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that hold unless the user gives others; see :mod:`anomalib_mediclip.registration`."""
        return {"max_epochs": MAX_EPOCHS, "log_every_n_steps": 1}

    @property
    def learning_type(self) -> LearningType:
        """One-class: it learns from normal images. anomalib trains no model that calls itself few-shot."""
        return LearningType.ONE_CLASS

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Return the default pre-processor: the whole image squashed to the input size, antialiased, as officially.

        Args:
            image_size (tuple[int, int] | None, optional): Height and width in pixels. Defaults to ``(224, 224)``.

        Returns:
            PreProcessor: Pre-processor without normalisation, which is part of the model.
        """
        size = tuple(image_size or (224, 224))
        return PreProcessor(transform=Resize(size, interpolation=InterpolationMode.BILINEAR, antialias=True))

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


def _in_range(image: torch.Tensor | None) -> torch.Tensor:
    """Return a plain tensor in [0, 1]: some interpolations overshoot when they resize."""
    return torch.as_tensor(image).as_subclass(torch.Tensor).clamp(0, 1)
