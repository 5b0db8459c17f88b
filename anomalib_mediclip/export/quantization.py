# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""INT8 for exported OpenVINO models: the frozen encoder is quantised, and nothing else.

What follows the encoder, the learnt adapters and the comparison with the prompts, is a few percent of the work, and the
scores hang on small differences there. What precedes it, the resizing, has weights that depend on the image.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import F1Score
from torchmetrics import Metric

from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 128  # a lite model calibrated on 64 is as good as one calibrated on 300
VALIDATION_IMAGES = 128


class PaintedImage(NamedTuple):
    """A synthetic image with its ground truth."""

    image: torch.Tensor  # (3, H, W)
    mask: torch.Tensor  # (1, H, W)
    label: bool


def support_images(dataset: Any, transform: Callable[[torch.Tensor], torch.Tensor] | None) -> list[torch.Tensor]:
    """Read a support set at the size that anomalies are painted at.

    Args:
        dataset (Any): Training set of a data module; of a large one images at even distances are taken.
        transform (Callable[[torch.Tensor], torch.Tensor] | None): Transform of the pre-processor.

    Returns:
        list[torch.Tensor]: RGB images in [0, 1] of shape ``(3, H, W)``.
    """
    positions = np.linspace(0, len(dataset) - 1, min(len(dataset), CALIBRATION_IMAGES // 2)).astype(int)
    images = [dataset[int(position)].image.as_subclass(torch.Tensor) for position in positions]
    return [(transform(image) if transform else image).clamp(0, 1) for image in images]


def calibration_images(
    support: Sequence[torch.Tensor], generator: MedicalAnomalyGenerator, number: int = CALIBRATION_IMAGES
) -> list[torch.Tensor]:
    """Return images to calibrate on: the support set, and anomalies painted on it. There is no test image among them.

    Args:
        support (Sequence[torch.Tensor]): Support set, ``(3, H, W)``.
        generator (MedicalAnomalyGenerator): Painter of anomalies; its support set is replaced.
        number (int, optional): Number of images. Defaults to ``128``.

    Returns:
        list[torch.Tensor]: RGB images in [0, 1] of shape ``(3, H, W)``, those of the support set first.
    """
    painted = _paint(support, generator, "calibration", number - len(support))
    return [*support, *(item.image for item in painted)]


def painted_images(support: Sequence[torch.Tensor], generator: MedicalAnomalyGenerator) -> list[PaintedImage]:
    """Return images to validate on, others than those to calibrate on.

    Args:
        support (Sequence[torch.Tensor]): Support set, ``(3, H, W)``.
        generator (MedicalAnomalyGenerator): Painter of anomalies; its support set is replaced.

    Returns:
        list[PaintedImage]: The support set as normal images, and 128 or more with anomalies.
    """
    normal = [PaintedImage(image, torch.zeros(1, *image.shape[-2:]), label=False) for image in support]
    return normal + _paint(support, generator, "accuracy", max(len(support), VALIDATION_IMAGES))


def _paint(
    support: Sequence[torch.Tensor], generator: MedicalAnomalyGenerator, purpose: str, number: int
) -> list[PaintedImage]:
    """Paint anomalies on the images of a support set in turn; the purpose keeps draws apart from others'."""
    generator.set_support_set(support)
    painted = []
    for index in range(number):
        epoch, position = divmod(index, len(support))
        image, mask = generator(support[position], names=[f"{purpose}/{position}"], epoch=epoch)
        painted.append(PaintedImage(image, mask, label=True))
    return painted


def kept_in_float(model: Any, frozen: Sequence[str]) -> list[str]:
    """List the operators of an OpenVINO model that INT8 would harm more than it saves.

    They are those before and after the frozen encoder, its first convolution, and its depthwise convolutions, whose
    few weights for each channel leave nothing to average rounding over.

    Args:
        model (Any): OpenVINO model, converted from ONNX; the constants of learnt weights have torch's names.
        frozen (Sequence[str]): Prefixes of the weights that are not learnt, such as ``vision_encoder.``.

    Returns:
        list[str]: Names of operators.

    Raises:
        ValueError: If the graph has no learnt weights, or not by their names.
    """
    operators = [operator for operator in model.get_ordered_ops() if operator.get_type_name() != "Constant"]
    after = _from_learnt_weights(operators, frozen)
    if not after:
        msg = "No learnt weight has its name in the OpenVINO graph, so what to keep in float is unknown. Use FP16."
        raise ValueError(msg)
    encoder = _up_to_last_product(operators, after)
    kept, in_encoder = [], False
    for operator in operators:
        kind, name = operator.get_type_name(), operator.get_friendly_name()
        if not in_encoder or name not in encoder or kind == "GroupConvolution":
            kept.append(name)
        in_encoder = in_encoder or kind == "Convolution"  # every encoder begins with one
    return kept


def _from_learnt_weights(operators: Sequence[Any], frozen: Sequence[str]) -> set[str]:
    """Return the names of the operators that what was learnt takes part in."""
    after: set[str] = set()
    for operator in operators:
        if any(source in after or _is_learnt(source, frozen) for source in _inputs(operator)):
            after.add(operator.get_friendly_name())
    return after


def _up_to_last_product(operators: Sequence[Any], after: set[str]) -> set[str]:
    """Return the names of the encoder's products and of all that leads to one.

    What comes behind the last one belongs to the head, even if nothing learnt takes part in it yet: the features that a
    memory bank compares are averaged and normalised first.
    """
    encoder: set[str] = set()
    for operator in reversed(operators):
        name = operator.get_friendly_name()
        is_product = operator.get_type_name() in ("Convolution", "GroupConvolution", "MatMul") and name not in after
        if is_product or name in encoder:
            encoder.add(name)
            encoder.update(_inputs(operator))
    return encoder


def _inputs(operator: Any) -> list[str]:
    """Return the names of what an operator takes."""
    return [value.get_node().get_friendly_name() for value in operator.input_values()]


def quantize(model: Any, images: Sequence[torch.Tensor], frozen: Sequence[str]) -> Any:
    """Quantise weights and activations of the encoder to INT8.

    Args:
        model (Any): OpenVINO model.
        images (Sequence[torch.Tensor]): Images to calibrate on, ``(3, H, W)``.
        frozen (Sequence[str]): As in :func:`kept_in_float`.

    Returns:
        Any: Quantised model.
    """
    import nncf

    settings = _settings(model, len(images), frozen)
    return nncf.quantize(model, _dataset(images), advanced_parameters=_advanced(), **settings)


def quantize_accurately(
    model: Any,
    images: Sequence[torch.Tensor],
    frozen: Sequence[str],
    validation: Sequence[PaintedImage],
    metric: Metric | None,
    max_drop: float,
) -> Any:
    """Quantise like :func:`quantize`, and give layers back to float until a metric holds.

    Args:
        model (Any): OpenVINO model.
        images (Sequence[torch.Tensor]): Images to calibrate on, ``(3, H, W)``.
        frozen (Sequence[str]): As in :func:`kept_in_float`.
        validation (Sequence[PaintedImage]): Images that the metric is measured on.
        metric (Metric | None): Metric of anomalib, the higher the better; None is the F1 of the images.
        max_drop (float): By how much it may fall.

    Returns:
        Any: Quantised model.
    """
    import nncf

    held = metric or F1Score(fields=["pred_label", "gt_label"])

    def measure(compiled: Any, items: Iterable[PaintedImage]) -> float:
        held.reset()
        for item in items:
            held.update(_predict(compiled, item))
        value = float(held.compute())
        if held.update_count > 1:  # NNCF also asks for the value of every single image
            logger.info("%s: %.4f on %d synthetic images", type(held).__name__, value, held.update_count)
        return value

    settings = _settings(model, len(images), frozen)
    return nncf.quantize_with_accuracy_control(
        model,
        _dataset(images),
        nncf.Dataset(list(validation)),
        measure,
        max_drop=max_drop,
        advanced_quantization_parameters=_advanced(),
        **settings,
    )


def compress_weights(model: Any, frozen: Sequence[str]) -> Any:
    """Store the weights of the encoder as INT8; it computes as before.

    Args:
        model (Any): OpenVINO model.
        frozen (Sequence[str]): As in :func:`kept_in_float`.

    Returns:
        Any: Model with smaller weights.
    """
    import nncf

    return nncf.compress_weights(model, ignored_scope=_ignored(model, frozen))


def _predict(compiled: Any, item: PaintedImage) -> ImageBatch:
    """Run a compiled model on a synthetic image."""
    predictions = compiled(item.image[None].numpy())
    names = [output.get_any_name() for output in compiled.outputs]
    fields: dict[str, Any] = {name: torch.from_numpy(predictions[name]) for name in names}
    return ImageBatch(image=item.image[None], gt_label=torch.tensor([item.label]), gt_mask=item.mask, **fields)


def _settings(model: Any, number: int, frozen: Sequence[str]) -> dict[str, Any]:
    """Return NNCF's settings: where there is attention the transformer scheme, which smooths activations first."""
    import nncf

    attention = any(operator.get_type_name() == "Softmax" for operator in model.get_ops())
    return {
        "model_type": nncf.ModelType.TRANSFORMER if attention else None,
        "preset": nncf.QuantizationPreset.MIXED,
        "fast_bias_correction": attention,  # the slow one is better, and quick where the encoder is small
        "subset_size": number,
        "ignored_scope": _ignored(model, frozen),
    }


def _advanced() -> Any:
    """Return NNCF's further settings: half the range for weights, or sums overflow on CPUs with AVX2 but no VNNI."""
    import nncf

    return nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)


def _ignored(model: Any, frozen: Sequence[str]) -> Any:
    """Return what NNCF leaves alone."""
    import nncf

    return nncf.IgnoredScope(names=kept_in_float(model, frozen), validate=False)


def _dataset(images: Sequence[torch.Tensor]) -> Any:
    """Return images as NNCF takes them, one at a time."""
    import nncf

    return nncf.Dataset(list(images), lambda image: image[None].numpy())


def _is_learnt(constant: str, frozen: Sequence[str]) -> bool:
    """Tell whether a constant of the graph is a weight that was learnt."""
    return constant.startswith("model.") and not constant.startswith(tuple(f"model.{prefix}" for prefix in frozen))
