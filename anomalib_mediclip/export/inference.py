# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""ONNX and OpenVINO exports on NumPy arrays, with the checks that a bare graph cannot make."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_mediclip.io.array import check_images

OUTPUTS = ("anomaly_map", "pred_score", "pred_mask", "pred_label")


class ExportedModel:
    """An ONNX or OpenVINO export.

    Args:
        path (Path | str): ``model.onnx`` or ``model.xml``.
        device (str, optional): Device of OpenVINO. Defaults to ``"CPU"``.
        precision (str, optional): Precision in which OpenVINO computes all but INT8: ``"f32"``, or ``"bf16"`` and
            ``"f16"``, which are faster where the hardware has them, and change maps. OpenVINO itself would choose these
            where it can. Defaults to ``"f32"``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is of another kind.
        ModuleNotFoundError: If the package that runs it is not installed.

    Example:
        >>> model = ExportedModel("results/weights/openvino/model.xml")  # doctest: +SKIP
        >>> model(images)["anomaly_map"]  # doctest: +SKIP
    """

    def __init__(self, path: Path | str, device: str = "CPU", precision: str = "f32") -> None:
        path = Path(path)
        if path.suffix not in (".onnx", ".xml"):
            msg = f"{path}: give model.onnx or model.xml, as `anomalib export` writes them."
            raise ValueError(msg)
        if not path.is_file():
            msg = f"{path} does not exist. Write it with `anomalib export --export_type onnx` or `openvino`."
            raise FileNotFoundError(msg)
        self._run = _open_onnx(path) if path.suffix == ".onnx" else _open_openvino(path, device, precision)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Predict a batch.

        Args:
            images (np.ndarray): RGB images in [0, 1] of shape ``(B, 3, H, W)``, float.

        Returns:
            dict[str, np.ndarray]: ``anomaly_map`` (float in [0, 1]) and ``pred_mask`` (bool), both of shape
            ``(B, 1, h, w)`` at the model's input size; ``pred_score`` (float in [0, 1]) and ``pred_label`` (bool) of
            shape ``(B,)``.

        Raises:
            TypeError: If the images are not floating-point numbers.
            ValueError: If shape, channels, range or size are wrong.
        """
        check_images(images)
        return self._run(np.ascontiguousarray(images, dtype=np.float32))


def require(*modules: str, purpose: str) -> None:
    """Refuse to go on without optional packages.

    Args:
        *modules (str): Names of modules.
        purpose (str): What they are needed for, as the beginning of a sentence.

    Raises:
        ModuleNotFoundError: If one is absent; names the extra that brings it.

    Example:
        >>> require("torch", purpose="Everything")
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        msg = f"{purpose} needs {', '.join(missing)}: pip install 'anomalib-mediclip[openvino]'"
        raise ModuleNotFoundError(msg, name=missing[0])


def _open_onnx(path: Path) -> Any:
    """Return a function that runs an ONNX file."""
    require("onnxruntime", purpose="Running an ONNX export")
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (input_,) = session.get_inputs()
    return lambda images: dict(zip(names, session.run(names, {input_.name: images}), strict=True))


def _open_openvino(path: Path, device: str, precision: str) -> Any:
    """Return a function that runs an OpenVINO file."""
    require("openvino", purpose="Running an OpenVINO export")
    import openvino

    compiled = openvino.Core().compile_model(path, device, {"INFERENCE_PRECISION_HINT": precision})
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        predictions = compiled(images)
        return {name: predictions[name] for name in names}

    return run
