# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""MediCLIP as a model of anomalib: options and training; the mathematics is in :mod:`.torch_model`.

Paper: https://arxiv.org/abs/2405.11315
"""

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_mediclip.data.auxiliary import RealAnomalies
from anomalib_mediclip.data.dataset import image_names, image_paths
from anomalib_mediclip.data.synthetic_validation import SyntheticValidationDataset
from anomalib_mediclip.evaluation import CalibrationPostProcessor
from anomalib_mediclip.evaluation.calibration import ScoreKind
from anomalib_mediclip.models.components.feature_cache import NoSpaceError, check_limit, storage_type
from anomalib_mediclip.models.components.frozen_encoder import EncoderPrecision, FrozenEncoderModule
from anomalib_mediclip.models.components.support_methods import LARGEST_SUPPORT, evenly_chosen, in_range
from anomalib_mediclip.models.mediclip.anomaly_map import Aggregation
from anomalib_mediclip.models.mediclip.builder import AdapterType, build_mediclip
from anomalib_mediclip.models.mediclip.loss import MediCLIPLoss
from anomalib_mediclip.models.mediclip.memory_bank import MemoryBank
from anomalib_mediclip.models.mediclip.painted_views import (
    FreshPaintings,
    Paint,
    PaintedViews,
    RealBatches,
    check_views,
)
from anomalib_mediclip.models.mediclip.prompting import ABNORMAL_TOKENS, NORMAL_TOKENS, PromptType
from anomalib_mediclip.models.mediclip.torch_model import MediCLIPModel
from anomalib_mediclip.synthesis import MedicalAnomalyGenerator, SynthesisOptions

MAX_SOURCES = 512  # support images kept in memory for CutPaste to cut from


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
        memory_bank (bool, optional): Whether to join the learnt map with the distance to the nearest patch of the
            support set. The map is then a sum of z-scores instead of a probability. Not in the paper.
            Defaults to ``False``.
        top_fraction (float, optional): Share of the pixels whose highest values are averaged to the image score; 0 for
            the maximum of the map (paper). Defaults to ``0.0``.
        synthesis (SynthesisOptions | None, optional): Options of the synthetic anomalies, as a mapping such as
            ``{"tasks": {"source": 1}, "blending": "paste"}``; ``python -m anomalib_mediclip.synthesis --help`` explains
            them. Defaults to ``None``: the paper's three tasks with equal probability.
        views (int | None, optional): Number of painted views of each support image. They are encoded once, before the
            first step, and visited in a new order again and again; more views need more time and memory. None paints
            and encodes afresh in every epoch, as the official code does. Defaults to ``50``.
        cache_limit (float, optional): Gigabytes of features that are kept in memory; what exceeds that lies in a file
            in the folder of the run until the training ends. Defaults to ``4.0``.
        learning_rate (float, optional): Learning rate of Adam. Defaults to ``1e-3``.
        encoder_precision (str, optional): ``float32``, or ``bfloat16``, in which the frozen encoder is twice as fast
            where the hardware has it; learned weights, maps and loss stay in float32. Defaults to ``"auto"``:
            ``bfloat16`` for CLIP on such hardware, else ``float32``.
        seed (int | None, optional): Seed of the initial weights and of the synthesis. The support set is drawn by the
            data module's own seed. Defaults to ``None``: the global seed (``--seed_everything``), or 0 without one.
        pre_processor (PreProcessor | bool, optional): Pre-processor, or whether to use the default (resize only).
            Defaults to ``True``.
        post_processor (CalibrationPostProcessor | PostProcessor | bool, optional): Post-processor, or whether to use
            the default (monotonic calibration). With a memory bank, a ``CalibrationPostProcessor`` is replaced by one
            for logits with the same arguments. Defaults to ``True``.
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

    TRAINING_PART = "prompts"
    LEARNS_REAL_ANOMALIES = True
    MAX_EPOCHS = 200  # official code; the paper does not say
    FROZEN = ("vision_encoder", "prompts.text_encoder")
    TRAINING_OPTIONS = FrozenEncoderModule.TRAINING_OPTIONS | {
        "learning_rate",
        "synthesis",
        "views",
        "cache_limit",
    }
    OPTIONS_OF_A_RUN = ("views",)
    DERIVED = ("model.prompt_features", "model.map_moments")

    model: MediCLIPModel
    anomaly_generator: MedicalAnomalyGenerator
    _painted: FreshPaintings | PaintedViews | RealBatches | None = None

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
        memory_bank: bool = False,
        top_fraction: float = 0.0,
        synthesis: SynthesisOptions | None = None,
        views: int | None = 50,
        cache_limit: float = 4.0,
        learning_rate: float = 1e-3,  # noqa: ARG002  # a hyper-parameter, read in configure_optimizers
        encoder_precision: EncoderPrecision = "auto",  # noqa: ARG002  # a hyper-parameter, read in setup
        seed: int | None = None,  # noqa: ARG002  # a hyper-parameter, read as used_seed
        pre_processor: PreProcessor | bool = True,
        post_processor: CalibrationPostProcessor | PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_views(views)
        check_limit(cache_limit)
        if memory_bank and type(post_processor) is CalibrationPostProcessor:
            # the command line makes one of this class for `--model.post_processor.image_sensitivity`
            post_processor = post_processor.for_scores("logit")
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
            memory_bank=memory_bank,
            top_fraction=top_fraction,
            seed=self.used_seed,
        )
        self.finish_encoder()
        self.anomaly_generator = MedicalAnomalyGenerator(**(synthesis or {}), seed=self.used_seed)
        self.loss = MediCLIPLoss()

    @property
    def scores(self) -> ScoreKind:
        """Probabilities, or logits where the memory bank adds to them."""
        return "logit" if self.hparams["memory_bank"] else super().scores

    # -- training ------------------------------------------------------------------------------------------------------

    @property
    def trains(self) -> bool:
        """Whether there is anything to learn: handcrafted prompts without an adapter have nothing (Table 4, row 1)."""
        return any(parameter.requires_grad for parameter in self.model.parameters())

    def on_train_start(self) -> None:
        """Get ready to paint, and paint and encode the views that all epochs take."""
        super().on_train_start()
        paths = image_paths(self.training_set)
        names, chosen = image_names(self.training_set), evenly_chosen(len(paths), MAX_SOURCES)
        images = {paths[index]: self.support_image(index) for index in chosen}
        self.anomaly_generator.seed = self.used_seed
        self.anomaly_generator.set_support_set(list(images.values()))
        if self.model.memory_bank is not None:
            self._remember_support_set(self.model.memory_bank, names)
        if not self.trains:
            return
        views: int | None = self.hparams["views"]
        real = self.real_anomalies
        if real is not None:
            self._take_real_anomalies(real, views)
        elif views is None:
            self._painted = FreshPaintings(self.anomaly_generator, self.model.vision_encoder, names)
        else:
            kept = images if self.repeats_support_set else {}
            positions = {path: index for index, path in enumerate(paths)}

            def paint(path: str, view: int) -> tuple[torch.Tensor, torch.Tensor]:
                image = kept[path] if path in kept else self.support_image(positions[path])
                painted, mask = self.anomaly_generator(image, [names[path]], view)
                return painted, mask[0]

            self._encode_views(names, views, paint)

    def _take_real_anomalies(self, real: RealAnomalies, views: int | None) -> None:
        """Get ready to learn from real images; images that are always the same have one view."""
        positions = {path: index for index, path in enumerate(image_paths(real))}

        def view(path: str, number: int) -> tuple[torch.Tensor, torch.Tensor]:
            del number
            image, mask = self.transformed_pair(real[positions[path]])
            return image, mask.float()

        if views is None:
            self._painted = RealBatches(self.model.vision_encoder)
        else:
            self._encode_views(image_names(real), 1 if real.is_repeatable else views, view)

    def _encode_views(self, names: dict[str, str], views: int, paint: Paint) -> None:
        """Encode a number of views of each image, which all epochs take."""
        self._painted = PaintedViews(names, views, self.used_seed, self.feature_cache, self._epochs_to_train())
        self._painted.encode(paint, self._encode, self.shows_progress)

    def _remember_support_set(self, memory_bank: MemoryBank, names: dict[str, str]) -> None:
        """Fill the memory bank; names of the support images are given by their paths."""
        try:
            self.encode_support_set(LARGEST_SUPPORT)
        except NoSpaceError as error:
            msg = f"The {error}. Free some space there, or give --model.cache_limit more gigabytes of memory."
            raise OSError(msg) from error
        remembered = [names[path] for path in self.encoded_paths]
        memory_bank.remember(self.encoded_support_set(), self.image_size, remembered, self.used_seed)

    def validation_head(self, features: list[torch.Tensor], batch: ImageBatch) -> InferenceBatch:
        """Predict painted support images, which the memory bank compares with the other images of the support set."""
        dataset: Any = getattr(self.trainer.val_dataloaders, "dataset", None)
        if self.model.memory_bank is None or not isinstance(dataset, SyntheticValidationDataset):
            return super().validation_head(features, batch)
        names = image_names(dataset)
        shown = [names[path] for path in batch.image_path or []]
        predictions: Any = self.model.head(features, torch.as_tensor(batch.image).shape[-2:], shown)
        return predictions

    def _epochs_to_train(self) -> range | None:
        """Return the epochs that remain, None if they are not known: a callback that averages weights may add one."""
        trainer = self.trainer
        limits = [] if trainer.max_epochs in (None, -1) else [trainer.max_epochs]
        if trainer.max_steps != -1:
            limits.append(math.ceil(trainer.max_steps * trainer.accumulate_grad_batches / trainer.num_training_batches))
        return None if not limits or self.is_averaged() else range(self.current_epoch, min(limits))

    def _encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Extract patch features as they are kept: in 16 bits, channels last ``(B, H_j, W_j, C_j)``."""
        kept = storage_type(self.model.vision_encoder)
        return [features.to(kept).movedim(1, -1) for features in self.encode(images)]

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Compute the loss of a batch of painted support images, or of real ones (Eq. 3)."""
        del args, kwargs
        assert self._painted is not None, "a training starts with on_train_start"
        patch_features, masks = self._painted(batch, in_range(batch.image), self.current_epoch)
        loss = self.loss(self.model.head(patch_features, masks.shape[-2:]), masks)
        return self.checked_loss(loss, len(masks))

    def forget_features(self) -> None:
        """Forget the painted views as well, when the weights that remain have their moments."""
        self._keep_map_moments()
        super().forget_features()
        self._painted = None

    def configure_optimizers(self) -> Any:
        """Return Adam with the settings of the official code, over prompts and adapters, if there are any."""
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not learnt:
            return []  # Lightning warns of None
        return torch.optim.Adam(learnt, lr=self.hparams["learning_rate"], betas=(0.5, 0.999))

    # -- checkpoints and exports ---------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Compute the prompt features anew: a callback may just have put an average in the place of the prompts."""
        super().on_validation_epoch_start()
        self.model.keep_prompt_features()
        self._keep_map_moments()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what follows from the weights that are saved, which a callback may have averaged."""
        state = checkpoint["state_dict"]
        if self.model.memory_bank is not None:  # a callback that averages copied the model before its bank was filled
            state.update(self.model.memory_bank.state_dict(prefix="model.memory_bank."))
        super().on_save_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        state["model.prompt_features"] = self.model.prompt_features_of(weights)
        if self.model.memory_bank is not None:
            support = list(self.encoded_support_set())  # after the training there is none, and one set of weights only
            moments = self.model.map_moments_of(weights, support, self.image_size) if support else None
            state["model.map_moments"] = self.model.map_moments.detach() if moments is None else moments

    def _keep_map_moments(self) -> None:
        """Compute the moments of the learnt map on the support set, with the weights as they are."""
        support = list(self.encoded_support_set())
        if self.model.memory_bank is not None and support:
            self.model.map_moments.copy_(self.model.map_moments_of({}, support, self.image_size))

    @contextlib.contextmanager
    def inference_parts(self) -> Iterator[None]:
        """Leave out prompts and text encoder for the time of a ``with`` block: inference needs f_n and f_a only."""
        self.model.eval()  # which computes these
        with super().inference_parts():
            yield

    def painter(self) -> MedicalAnomalyGenerator:
        """Return a copy of the generator that the model is trained with."""
        return copy.deepcopy(self.anomaly_generator)
