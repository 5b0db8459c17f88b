# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""ONNX and OpenVINO exports on NumPy arrays, with the checks that a bare graph cannot make."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

OUTPUTS = ("anomaly_map", "pred_score", "pred_mask", "pred_label")
MAX_PIXELS = 2**26  # of a batch: 0.8 GB of float32


def check_images(images: Any) -> None:
    """Refuse what a model would predict without complaint, and wrongly.

    Args:
        images (Any): Array or tensor that should hold RGB images in [0, 1] of shape ``(B, 3, H, W)``.

    Raises:
        TypeError: If the values are not floating-point numbers.
        ValueError: If shape, channels, range or size are wrong.

    Example:
        >>> check_images(np.zeros((1, 1, 8, 8), dtype=np.float32))
        Traceback (most recent call last):
            ...
        ValueError: The images have 1 channel, the model takes RGB. Repeat the grey channel three times.
    """
    shape = tuple(images.shape)
    if len(shape) != 4:
        msg = f"The images have shape {shape}, the model takes (B, 3, H, W)."
        raise ValueError(msg)
    if shape[1] != 3:
        raise ValueError(_wrong_channels(shape))
    if "float" not in str(images.dtype):
        msg = f"The images are {images.dtype}, the model takes float32 in [0, 1]. Divide 8-bit values by 255."
        raise TypeError(msg)
    if 0 in shape or shape[0] * shape[2] * shape[3] > MAX_PIXELS:
        msg = (
            f"The images have shape {shape}: a batch must have between 1 and {MAX_PIXELS} pixels. Predict fewer images "
            "at a time, or make them smaller first."
        )
        raise ValueError(msg)
    _check_range(float(images.min()), float(images.max()))


class ExportedModel:
    """An ONNX or OpenVINO export.

    Args:
        path (Path | str): ``model.onnx`` or ``model.xml``.
        device (str, optional): Device of OpenVINO. Defaults to ``"CPU"``.
        precision (str, optional): In what OpenVINO computes what is not INT8: ``"f32"``, or ``"bf16"`` and ``"f16"``,
            which are faster where the hardware has them, and change maps. Left to itself OpenVINO takes these where it
            can. Defaults to ``"f32"``.

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


def _wrong_channels(shape: tuple[int, ...]) -> str:
    """Say what is wrong with the number of channels."""
    if shape[-1] in (1, 3, 4):
        return f"The images have shape {shape}, the model takes (B, 3, H, W). Put the channels second."
    cures = {1: "Repeat the grey channel three times.", 4: "Drop the alpha channel."}
    channels = f"{shape[1]} channel{'s' * (shape[1] != 1)}"
    return f"The images have {channels}, the model takes RGB. {cures.get(shape[1], 'Choose three.')}"


def _check_range(lowest: float, highest: float) -> None:
    """Refuse values that are not in [0, 1]; a thousandth beyond is rounding."""
    if lowest >= -1e-3 and highest <= 1 + 1e-3:
        return
    cure = "Divide them by 255." if lowest >= 0 and 1 < highest <= 255 else "Do not normalise; the model does."
    if not np.isfinite([lowest, highest]).all():
        cure = "Look for NaN and infinite values in the images."
    msg = f"The images range from {lowest:.4g} to {highest:.4g}, the model takes values in [0, 1]. {cure}"
    raise ValueError(msg)
