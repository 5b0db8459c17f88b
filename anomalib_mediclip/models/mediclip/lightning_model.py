# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP as a model of anomalib: what it adds to the life cycle; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2405.11315
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize

from anomalib_mediclip.encoders.bfloat16 import computing_device, native_bfloat16
from anomalib_mediclip.encoders.weights import TIMM_PREFIX
from anomalib_mediclip.io import relative_names
from anomalib_mediclip.models.components.few_shot_module import FewShotModule
from anomalib_mediclip.models.mediclip.anomaly_map import Aggregation
from anomalib_mediclip.models.mediclip.loss import MediCLIPLoss
from anomalib_mediclip.models.mediclip.prompting import ABNORMAL_TOKENS, NORMAL_TOKENS, PromptType
from anomalib_mediclip.models.mediclip.support_features import SupportFeatures
from anomalib_mediclip.models.mediclip.torch_model import AdapterType, MediCLIPModel
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator, SynthesisOptions

MAX_SOURCES = 512  # support images kept in memory for CutPaste to cut from


class PaintedBatch(NamedTuple):
    """Images ``(B, 3, H, W)`` with anomalies, their masks ``(B, H, W)``, their names, and which had nothing painted."""

    images: torch.Tensor
    masks: torch.Tensor
    names: list[str]
    unchanged: list[bool]


class MediCLIP(FewShotModule, AnomalibModule):
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
        synthesis (SynthesisOptions | None, optional): Options of the synthetic anomalies, as a mapping such as
            ``{"tasks": {"source": 1}, "blending": "paste"}``; ``python -m anomalib_mediclip.synthesis --help`` explains
            them. Defaults to ``None``: the paper's three tasks with equal probability.
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

    MAX_EPOCHS = 200  # official code; the paper does not say
    SETTINGS = (
        "layers",
        "image_size",
        "prompt",
        "context_length",
        "normal_tokens",
        "abnormal_tokens",
        "causal_text",
        "adapter",
        "temperature",
        "aggregation",
    )

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
        self._support_features: SupportFeatures | None = None
        self._painted: PaintedBatch | None = None

    # -- training ------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Prepare a stage.

        Args:
            stage (str): Stage of the trainer.
        """
        super().setup(stage)
        # Lightning wonders whether the data module should do it
        warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer`")

    def on_train_start(self) -> None:
        """Give the generator the support images that CutPaste cuts from."""
        dataset: Any = cast("DataLoader", self.trainer.train_dataloader).dataset
        step = -(-len(dataset) // MAX_SOURCES)
        self._names = relative_names(dataset.samples["image_path"])
        items = [dataset[index] for index in range(0, len(dataset), step)]
        transform: Any = getattr(self.pre_processor, "transform", None)
        images = [_in_range(transform(item.image) if transform else item.image) for item in items]
        self.anomaly_generator.set_support_set(images)
        self._painted = None  # a run that was interrupted may have left a batch
        self._support_features = None
        if self.anomaly_generator.tasks.get("identity"):
            names = [self._names[item.image_path] for item in items]
            self._support_features = SupportFeatures(self.model.vision_encoder, dict(zip(names, images, strict=True)))

    def on_before_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        """Paint anomalies on images that have their size already, while a GPU still computes the step before.

        Args:
            batch (ImageBatch): Batch of any stage.
            dataloader_idx (int): Number of the data loader.

        Returns:
            ImageBatch: The batch, in training with anomalies.
        """
        del dataloader_idx
        if self.trainer.training and self._names and self._is_final(batch):
            self._painted = self._paint(batch)
            batch.image = self._painted.images
        return batch

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Synthesise anomalies on a batch of normal images, unless it has them, and compute the loss (Eq. 3).

        Args:
            batch (ImageBatch): Batch of images.
            *args (Any): Not used.
            **kwargs (Any): Not used.

        Returns:
            STEP_OUTPUT: Loss.

        Raises:
            FloatingPointError: If the loss of the step before is not finite.
        """
        del args, kwargs
        painted, self._painted = self._painted or self._paint(batch), None
        images, masks = painted.images.to(self.device), painted.masks.to(self.device)
        loss = self.loss(self.model(images, self._known_features(images, painted)), masks)
        cure = f"Lower --model.learning_rate ({self.hparams['learning_rate']}), or use --trainer.precision 32."
        return self.checked_loss(loss, len(images), cure)

    def _is_final(self, batch: ImageBatch) -> bool:
        """Tell whether the pre-processor will leave the images of a batch as they are."""
        transform = getattr(self.pre_processor, "transform", None)
        resized = _in_range(batch.image).shape[-2:] == tuple(self.hparams["image_size"])
        return transform is None or (isinstance(transform, Resize) and resized)

    def _paint(self, batch: ImageBatch) -> PaintedBatch:
        """Paint anomalies on a batch of normal images."""
        names = [self._names[path] for path in batch.image_path or []]
        images, masks = self.anomaly_generator(_in_range(batch.image), names, self.current_epoch)
        unchanged = self._support_features.find_unchanged(images, names) if self._support_features else []
        return PaintedBatch(images, masks.squeeze(1), names, unchanged)

    def _known_features(self, images: torch.Tensor, painted: PaintedBatch) -> list[torch.Tensor] | None:
        """Return the patch features of a batch if those of some of its images are kept."""
        if self._support_features is None or not any(painted.unchanged):
            return None
        return self._support_features.encode(images, painted.names, painted.unchanged)

    def default_trainer_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add the precision: bfloat16 for CLIP where the hardware has it; see :class:`EncoderPrecision`.

        The small convolutional encoders of timm stay in float32.

        Args:
            given (Mapping[str, Any]): The user's trainer arguments.

        Returns:
            dict[str, Any]: Trainer arguments.
        """
        defaults = super().default_trainer_arguments(given)
        is_clip = not self.hparams["encoder"].startswith(TIMM_PREFIX)
        if is_clip and not given.get("plugins") and native_bfloat16(computing_device(given.get("accelerator"))):
            defaults["precision"] = "bf16-true"  # a user's plug-in may be a precision, and Lightning refuses two
        return defaults

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the prompt features as they are now; see :meth:`FewShotModule.on_save_checkpoint`.

        Args:
            checkpoint (dict[str, Any]): Checkpoint to be written, changed in place.
        """
        self.model.keep_prompt_features()
        super().on_save_checkpoint(checkpoint)


def _in_range(image: torch.Tensor | None) -> torch.Tensor:
    """Return a plain tensor in [0, 1]: some interpolations overshoot when they resize."""
    return torch.as_tensor(image).as_subclass(torch.Tensor).clamp(0, 1)
