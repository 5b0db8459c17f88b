# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2405.11315
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize

from anomalib_mediclip.data.dataset import image_paths
from anomalib_mediclip.evaluation import CalibrationPostProcessor
from anomalib_mediclip.io import relative_names
from anomalib_mediclip.models.components.frozen_encoder import EncoderPrecision, FrozenEncoderModule
from anomalib_mediclip.models.components.pre_processing import transform_of
from anomalib_mediclip.models.mediclip.anomaly_map import Aggregation
from anomalib_mediclip.models.mediclip.builder import AdapterType, build_mediclip
from anomalib_mediclip.models.mediclip.loss import MediCLIPLoss
from anomalib_mediclip.models.mediclip.prompting import ABNORMAL_TOKENS, NORMAL_TOKENS, PromptType
from anomalib_mediclip.models.mediclip.support_features import SupportFeatures
from anomalib_mediclip.models.mediclip.torch_model import MediCLIPModel
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator, SynthesisOptions

MAX_SOURCES = 512  # support images kept in memory for CutPaste to cut from


@dataclass
class PaintedBatch(ImageBatch):
    """Batch whose images have synthetic anomalies.

    Attributes:
        painted_mask (torch.Tensor | None): Masks of the anomalies, float32 ``(B, 1, H, W)`` in [0, 1].
    """

    painted_mask: torch.Tensor | None = None


class MediCLIP(FrozenEncoderModule, AnomalibModule):
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
        aggregation (str, optional): Value that is averaged over the blocks: the ``probability`` after the softmax
            (paper) or the cosine ``similarity`` before it (official code). Defaults to ``"probability"``.
        synthesis (SynthesisOptions | None, optional): Options of the synthetic anomalies, as a mapping such as
            ``{"tasks": {"source": 1}, "blending": "paste"}``; ``python -m anomalib_mediclip.synthesis --help`` explains
            them. Defaults to ``None``: the paper's three tasks with equal probability.
        learning_rate (float, optional): Learning rate of Adam. Defaults to ``1e-3``.
        encoder_precision (str, optional): ``float32``, or ``bfloat16``, in which the frozen encoder is twice as fast
            where the hardware has it; learned weights, maps and loss stay in float32. Defaults to ``"auto"``:
            ``bfloat16`` for CLIP on such hardware, else ``float32``.
        seed (int | None, optional): Seed of the initial weights and of the synthesis. The support set is drawn by the
            data module's own seed. Defaults to ``None``: the global seed (``--seed_everything``), or 0 without one.
        pre_processor (PreProcessor | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (CalibrationPostProcessor | PostProcessor | bool, optional): Post-processor, or whether to use
            the default (monotonic calibration). Defaults to ``True``.
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
    FROZEN = ("vision_encoder", "prompts.text_encoder")
    TRAINING_OPTIONS = FrozenEncoderModule.TRAINING_OPTIONS | {"learning_rate", "synthesis"}
    DERIVED = ("model.prompt_features",)
    EXPECTED_WARNINGS = (*FrozenEncoderModule.EXPECTED_WARNINGS, "You have overridden `on_before_batch_transfer`")

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
        encoder_precision: EncoderPrecision = "auto",  # noqa: ARG002  # a hyper-parameter, read in setup
        seed: int | None = None,  # noqa: ARG002  # a hyper-parameter, read as used_seed
        pre_processor: PreProcessor | bool = True,
        post_processor: CalibrationPostProcessor | PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.model = build_mediclip(
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
            seed=self.used_seed,
        )
        self.finish_encoder()
        self.anomaly_generator = MedicalAnomalyGenerator(**(synthesis or {}), seed=self.used_seed)
        self.loss = MediCLIPLoss()
        self._names: dict[str, str] = {}
        self._support_features: SupportFeatures | None = None

    # -- training ------------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Give the generator the support images that CutPaste cuts from."""
        dataset: Any = cast("DataLoader", self.trainer.train_dataloader).dataset
        step = -(-len(dataset) // MAX_SOURCES)
        self._names = relative_names(image_paths(dataset))
        items = [dataset[index] for index in range(0, len(dataset), step)]
        transform = transform_of(self.pre_processor)
        images = [_in_range(transform(item.image) if transform else item.image) for item in items]
        self.anomaly_generator.seed = self.used_seed
        self.anomaly_generator.set_support_set(images)
        self._support_features = None
        if self.anomaly_generator.tasks.get("identity"):
            names = [self._names[item.image_path] for item in items]
            self._support_features = SupportFeatures(self.model.vision_encoder, dict(zip(names, images, strict=True)))

    def on_before_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        """Paint anomalies while a GPU still computes the step before, if the pre-processor will change nothing."""
        del dataloader_idx
        transform = transform_of(self.pre_processor)
        is_final = transform is None or (isinstance(transform, Resize) and _size_of(batch) == self.image_size)
        return self._paint(batch) if self.trainer.training and self._names and is_final else batch

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Compute the loss of a batch (Eq. 3), after synthesising anomalies on it if that is still to be done."""
        del args, kwargs
        painted = batch if isinstance(batch, PaintedBatch) else self._paint(batch)
        images, masks = _in_range(painted.image), torch.as_tensor(painted.painted_mask)
        names = self._names_of(batch)
        patch_features = self._support_features.encode(images, names) if self._support_features else None
        loss = self.loss(self.model(images, patch_features), masks.squeeze(1))
        cure = f"Lower --model.learning_rate ({self.hparams['learning_rate']}), or use --trainer.precision 32."
        return self.checked_loss(loss, len(images), cure)

    def _paint(self, batch: ImageBatch) -> PaintedBatch:
        """Paint anomalies on a batch of normal images."""
        images, masks = self.anomaly_generator(_in_range(batch.image), self._names_of(batch), self.current_epoch)
        return PaintedBatch(image=images, image_path=batch.image_path, gt_label=batch.gt_label, painted_mask=masks)

    def _names_of(self, batch: ImageBatch) -> list[str]:
        """Return the names that decide which anomalies are painted."""
        return [self._names[path] for path in batch.image_path or []]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with the settings of the official code, over prompts and adapters.

        Raises:
            ValueError: If nothing can be learnt.
        """
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not learnt:
            msg = "adapter='none' with prompt='handcrafted' leaves nothing to learn. Test it with `anomalib test`."
            raise ValueError(msg)
        return torch.optim.Adam(learnt, lr=self.hparams["learning_rate"], betas=(0.5, 0.999))

    # -- checkpoints and exports ---------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Compute the prompt features anew: a callback may just have put an average in the place of the prompts."""
        super().on_validation_epoch_start()
        self.model.keep_prompt_features()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the prompt features of the prompts that are saved, which a callback may have averaged."""
        super().on_save_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        prefix = "model.prompts."
        prompts = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        state["model.prompt_features"] = self.model.prompt_features_of(prompts)

    @contextlib.contextmanager
    def inference_parts(self) -> Iterator[None]:
        """Leave out prompts and text encoder for the time of a ``with`` block: inference needs f_n and f_a only."""
        self.model.eval()
        prompts, self.model.prompts = self.model.prompts, nn.Identity()
        try:
            yield
        finally:
            self.model.prompts = prompts

    def painter(self) -> MedicalAnomalyGenerator:
        """Return a copy of the generator that the model is trained with."""
        return copy.deepcopy(self.anomaly_generator)


def _size_of(batch: ImageBatch) -> tuple[int, int]:
    """Return height and width of the images of a batch."""
    height, width = torch.as_tensor(batch.image).shape[-2:]
    return height, width


def _in_range(image: torch.Tensor | None) -> torch.Tensor:
    """Return a plain tensor in [0, 1]: some interpolations overshoot when they resize."""
    return torch.as_tensor(image).as_subclass(torch.Tensor).clamp(0, 1)
