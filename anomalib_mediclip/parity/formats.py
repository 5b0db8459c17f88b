# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The formats of a report: which files are exported, and in which precisions each of them is run."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from anomalib.deploy import CompressionType, ExportType

from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers
from anomalib_mediclip.export.inference import ExportedModel

FIELDS = ("anomaly_map", "pred_score", "pred_label")  # those that are compared
FormatName = Literal[
    "torch", "onnx", "openvino", "openvino_fp16", "openvino_int8", "openvino_int8_ptq", "openvino_int8_acq"
]
FORMATS: dict[FormatName, tuple[ExportType, CompressionType | None]] = {
    "torch": (ExportType.TORCH, None),
    "onnx": (ExportType.ONNX, None),
    "openvino": (ExportType.OPENVINO, None),
    "openvino_fp16": (ExportType.OPENVINO, CompressionType.FP16),
    "openvino_int8": (ExportType.OPENVINO, CompressionType.INT8),
    "openvino_int8_ptq": (ExportType.OPENVINO, CompressionType.INT8_PTQ),
    "openvino_int8_acq": (ExportType.OPENVINO, CompressionType.INT8_ACQ),
}
CALIBRATED: tuple[FormatName, ...] = ("openvino_int8_ptq", "openvino_int8_acq")
COMPANIONS = {".pt": [".pt"], ".onnx": [".onnx", ".onnx.data"], ".xml": [".xml", ".bin"]}

Predict = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From images ``(B, 3, H, W)``, float32 in [0, 1], to at least ``FIELDS``: ``(B, 1, H, W)``, ``(B,)`` and ``(B,)``."""


@dataclass(frozen=True)
class Format:
    """An exported file in the precision in which its runtime computes.

    Args:
        name (FormatName): Key of ``FORMATS``.
        precision (str): ``f32``, ``bf16`` or ``f16``.
    """

    name: FormatName
    precision: str

    def __str__(self) -> str:
        """Return both as one name."""
        return f"{self.name} {self.precision}"

    def open(self, path: Path) -> Predict:
        """Load the exported file into its runtime, on the CPU.

        Args:
            path (Path): Exported file.

        Returns:
            Predict: What predicts images.

        Raises:
            ModuleNotFoundError: If the runtime is not installed.
        """
        is_torch = FORMATS[self.name][0] == ExportType.TORCH
        return _open_torch(path, self.precision) if is_torch else ExportedModel(path, precision=self.precision)


def precisions(name: FormatName, has_encoder: bool) -> list[str]:
    """Return the precisions in which a format is run: float32, and the one that its runtime would rather use.

    Args:
        name (FormatName): Key of ``FORMATS``.
        has_encoder (bool): Whether the model has a frozen encoder, which torch can run in bfloat16.

    Returns:
        list[str]: ``f32`` first. OpenVINO's own choice is bfloat16 on a CPU that multiplies it in hardware.
    """
    kind = FORMATS[name][0]
    if kind == ExportType.TORCH:
        return ["f32", "bf16"] if has_encoder else ["f32"]
    if kind == ExportType.ONNX or find_spec("openvino") is None:
        return ["f32"]
    import openvino

    preferred = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    return list(dict.fromkeys(["f32", preferred]))


def size_on_disk(path: Path) -> float:
    """Return the size of an exported model, weights in files beside it included.

    Args:
        path (Path): Exported file.

    Returns:
        float: Megabytes of 10^6 bytes.
    """
    files = [path.with_suffix(suffix) for suffix in COMPANIONS[path.suffix]]
    return sum(file.stat().st_size for file in files if file.exists()) / 1e6


def predict_with(model: Any) -> Predict:
    """Return what predicts with a model of torch.

    Args:
        model (Any): Callable from a tensor to an ``InferenceBatch``.

    Returns:
        Predict: The same from arrays to arrays.
    """

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            batch = model(torch.from_numpy(images))
        return {name: getattr(batch, name).numpy() for name in FIELDS}

    return predict


def _open_torch(path: Path, precision: str) -> Predict:
    """Load a pickled model, and cast its encoder if so wanted."""
    model = torch.load(path, map_location="cpu", weights_only=False)["model"].eval()
    if precision == "bf16":
        Bfloat16Towers(model.towers)
    return predict_with(model)
