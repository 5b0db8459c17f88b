# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""ONNX and OpenVINO exports on NumPy arrays, with the checks that a bare graph cannot make."""

from collections import deque
from collections.abc import Iterable, Iterator
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
        threads (int | None, optional): CPU cores of an OpenVINO file, each of which works at an image of its own in
            :meth:`stream`. Defaults to ``None``: OpenVINO decides, for one batch at a time.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is of another kind.
        ModuleNotFoundError: If the package that runs it is not installed.

    Example:
        >>> model = ExportedModel("results/weights/openvino/model.xml")  # doctest: +SKIP
        >>> model(images)["anomaly_map"]  # doctest: +SKIP
    """

    def __init__(
        self, path: Path | str, device: str = "CPU", precision: str = "f32", threads: int | None = None
    ) -> None:
        path = Path(path)
        if path.suffix not in (".onnx", ".xml"):
            msg = f"{path}: give model.onnx or model.xml, as `anomalib export` writes them."
            raise ValueError(msg)
        if not path.is_file():
            msg = f"{path} does not exist. Write it with `anomalib export --export_type onnx` or `openvino`."
            raise FileNotFoundError(msg)
        self._run: _Onnx | _OpenVino
        self._run = _Onnx(path) if path.suffix == ".onnx" else _OpenVino(path, device, precision, threads)

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
        return self._run(_checked(images))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Predict batches while the next ones are read; an OpenVINO file works at several at once.

        Args:
            batches (Iterable[np.ndarray]): Batches as for a call.

        Yields:
            dict[str, np.ndarray]: What a call returns, in the order of the batches.

        Raises:
            TypeError: If the images are not floating-point numbers.
            ValueError: If shape, channels, range or size are wrong.
        """
        yield from self._run.stream(_checked(batch) for batch in batches)


def _checked(images: np.ndarray) -> np.ndarray:
    """Return images as the runtimes take them."""
    check_images(images)
    return np.ascontiguousarray(images, dtype=np.float32)


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


class _Onnx:
    """An ONNX file in its runtime."""

    def __init__(self, path: Path) -> None:
        require("onnxruntime", purpose="Running an ONNX export")
        import onnxruntime

        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        (input_,) = self._session.get_inputs()
        self._input = input_.name

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._session.run(self._names, {self._input: images}), strict=True))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        return map(self, batches)


class _OpenVino:
    """An OpenVINO file in its runtime."""

    def __init__(self, path: Path, device: str, precision: str, threads: int | None) -> None:
        require("openvino", purpose="Running an OpenVINO export")
        import openvino

        hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
        if threads is not None:  # a stream has one thread, so that results do not depend on how many there are
            # pinned, the threads of several processes would all share the first cores of the machine
            hints |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads, "ENABLE_CPU_PINNING": False}
        self._compiled = openvino.Core().compile_model(path, device, hints)
        self._names = [output.get_any_name() for output in self._compiled.outputs]
        self._requests = threads or 1

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        predictions = self._compiled(images)
        return {name: predictions[name] for name in self._names}

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Predict with as many requests as there are streams, and one more that waits for a free one."""
        idle = deque(self._compiled.create_infer_request() for _ in range(self._requests + 1))
        busy: deque[Any] = deque()
        for batch in batches:
            if not idle:
                yield self._taken_from(busy, idle)
            request = idle.popleft()
            request.start_async([batch])
            busy.append(request)
        while busy:
            yield self._taken_from(busy, idle)

    def _taken_from(self, busy: deque[Any], idle: deque[Any]) -> dict[str, np.ndarray]:
        """Wait for the oldest request, and copy what it found: it is used again."""
        request = busy.popleft()
        request.wait()
        found = {name: request.get_tensor(name).data.copy() for name in self._names}
        idle.append(request)
        return found
