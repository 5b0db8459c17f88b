# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Export methods of the plugin's models; they replace those of anomalib behind the same command and ``Engine.export``.

anomalib exports resizing without antialiasing (see :mod:`anomalib_mediclip.models.components.pre_processing`). It
quantises everything with settings for convolutions, and calibrates on whatever the validation loader gives.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from anomalib import TaskType
from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType, ExportType
from anomalib.models.components.base.export_mixin.utils import create_export_root
from anomalib.post_processing import PostProcessor
from torch import nn
from torchmetrics import Metric

from anomalib_mediclip.evaluation.calibration import NOT_CALIBRATED
from anomalib_mediclip.export.artifact import save_artifact
from anomalib_mediclip.export.inference import require
from anomalib_mediclip.export.model_card import write_model_card
from anomalib_mediclip.export.node_origin import forget_origin
from anomalib_mediclip.quiet import quiet

if TYPE_CHECKING:  # Lightning and anomalib declare `to_onnx` differently; only here need the checker be told
    from anomalib.models.components import AnomalibModule as ExportMixin
else:
    from anomalib.models.components.base.export_mixin import ExportMixin

logger = logging.getLogger(__name__)

ONNX_OPSET = 18  # the first that the exporter needs no conversion for
LARGE = 100_000_000  # parameters


class ExportMethods(ExportMixin):
    """anomalib's export mixin with antialiased resizing, a model card, and files that load without pickle.

    Attributes:
        TRAINING_PART (str | None): Name of the part of the model that only training needs, if it has one.
    """

    TRAINING_PART: str | None = None

    @property
    def title(self) -> str:
        """Name of the model in messages."""
        return str(self.name)

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export as a pickle, as anomalib does, and beside it as safetensors and JSON.

        Args:
            export_root (Path | str): Folder to write to.
            model_file_name (str, optional): Name of the files without extension. Defaults to ``"model"``.

        Returns:
            Path: The pickle.
        """
        with self.exporting("PyTorch"):
            with self.inference_parts(), without_gradients(self):
                path = super().to_torch(export_root, model_file_name)
            save_artifact(self, path.parent, model_file_name)
        write_model_card(self, path, "PyTorch, safetensors")
        return path

    def to_onnx(  # type: ignore[override]  # as anomalib declares it
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Export to ONNX.

        Args:
            export_root (Path | str): Folder to write to.
            model_file_name (str, optional): Name of the file without extension. Defaults to ``"model"``.
            input_size (tuple[int, int] | None, optional): Fixed height and width of the input in pixels.
                Defaults to ``None``: any size.
            **kwargs (Any): Arguments of :func:`torch.onnx.export`.

        Returns:
            Path: The file.

        Raises:
            ModuleNotFoundError: If packages are missing; names the extra that brings them.
        """
        require("onnx", "onnxscript", purpose="The export to ONNX")
        with self.exporting("ONNX"):
            path = self._trace(export_root, model_file_name, input_size, kwargs)
        write_model_card(self, path, "ONNX")
        return path

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | str | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: TaskType | None = None,
        max_drop: float = 0.01,
        ov_kwargs: dict[str, Any] | None = None,
        onnx_kwargs: dict[str, Any] | None = None,
    ) -> Path:
        """Export to OpenVINO.

        Args:
            export_root (Path | str): Folder to write to.
            model_file_name (str, optional): Name of the files without extension. Defaults to ``"model"``.
            input_size (tuple[int, int] | None, optional): Fixed height and width of the input in pixels.
                Defaults to ``None``: any size.
            compression_type (CompressionType | str | None, optional): ``FP16``; ``INT8``, the weights of the encoder
                only; ``INT8_PTQ``, the encoder quantised; ``INT8_ACQ``, the same with parts left in float until a
                metric holds. Defaults to ``None``: float32.
            datamodule (AnomalibDataModule | None, optional): Data module as in training, for ``INT8_PTQ`` and
                ``INT8_ACQ``. Its support set is used, and no test image. Defaults to ``None``.
            metric (Metric | None, optional): Metric that ``INT8_ACQ`` holds, on synthetic anomalies.
                Defaults to ``None``: F1 of the images, as in anomalib.
            task (TaskType | None, optional): Not used. Defaults to ``None``.
            max_drop (float, optional): By how much ``INT8_ACQ`` may lower the metric. Defaults to ``0.01``.
            ov_kwargs (dict[str, Any] | None, optional): Arguments of ``openvino.convert_model``.
                Defaults to ``None``.
            onnx_kwargs (dict[str, Any] | None, optional): Arguments of :func:`torch.onnx.export`.
                Defaults to ``None``.

        Returns:
            Path: The ``.xml`` file.

        Raises:
            ModuleNotFoundError: If packages are missing; names the extra that brings them.
            ValueError: If there are no images to calibrate on.
        """
        del task
        if isinstance(compression_type, str):
            compression_type = CompressionType(compression_type.lower())
        floating = compression_type in (None, CompressionType.FP16)
        require("onnx", "onnxscript", "openvino", *([] if floating else ["nncf"]), purpose="The export to OpenVINO")
        if datamodule is None and compression_type in (CompressionType.INT8_PTQ, CompressionType.INT8_ACQ):
            msg = f"{compression_type.name} needs images to calibrate on: give --data as in training."
            raise ValueError(msg)
        form = f"OpenVINO {compression_type.name if compression_type else 'FP32'}"
        if not floating:
            import nncf  # noqa: F401  # sets its own log level when it is first imported
        import openvino

        with self.exporting(form), TemporaryDirectory() as folder:
            traced = self._trace(folder, model_file_name, input_size, dict(onnx_kwargs or {}))
            graph = openvino.convert_model(traced, **(ov_kwargs or {}))
            if not floating:
                graph = self.compress(graph, compression_type, datamodule, metric, max_drop)
            path = create_export_root(export_root, ExportType.OPENVINO) / f"{model_file_name}.xml"
            openvino.save_model(graph, path, compress_to_fp16=compression_type == CompressionType.FP16)
        write_model_card(self, path, form)
        return path

    def _trace(self, root: Path | str, name: str, input_size: tuple[int, int] | None, options: dict[str, Any]) -> Path:
        """Write the graph as ONNX, without a card and without what torch notes of each node."""
        options.setdefault("opset_version", ONNX_OPSET)
        path = super().to_onnx(root, name, input_size, **options)
        forget_origin(path)
        return path

    def compress(
        self,
        graph: Any,
        compression_type: CompressionType | None,
        datamodule: AnomalibDataModule | None,
        metric: Metric | None,
        max_drop: float,
    ) -> Any:
        """Bring an OpenVINO model to INT8; arguments as in :meth:`to_openvino`.

        Raises:
            ValueError: If the model has no frozen encoder.
        """
        del graph, datamodule, metric, max_drop
        kind = compression_type.name if compression_type else "INT8"
        msg = f"{kind} quantises a frozen encoder, and {self.name} has none. Use --compression_type FP16."
        raise ValueError(msg)

    @contextlib.contextmanager
    def inference_parts(self) -> Iterator[None]:
        """Leave out what only training needs, for the time of a ``with`` block: the pickle need not hold it.

        Yields:
            None: Nothing.
        """
        if self.TRAINING_PART is None:
            yield
            return
        part = getattr(self.model, self.TRAINING_PART)
        setattr(self.model, self.TRAINING_PART, nn.Identity())
        try:
            yield
        finally:
            setattr(self.model, self.TRAINING_PART, part)

    @contextlib.contextmanager
    def exporting(self, form: str) -> Iterator[None]:
        """Log what is exported, and silence the libraries that export, for the time of a ``with`` block.

        Args:
            form (str): Format and compression, in words.

        Yields:
            None: Nothing.
        """
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        patience = "; this may take minutes" if parameters > LARGE else ""
        logger.info("Exporting %s to %s%s", self.title, form, patience)
        processor = self.post_processor
        if isinstance(processor, PostProcessor) and processor.image_threshold.isnan():
            logger.warning("%s Then export again.", NOT_CALIBRATED)
        with quiet("onnx_ir", "onnxscript", "nncf", "torch.utils.cpp_extension"):
            yield


@contextlib.contextmanager
def without_gradients(module: nn.Module) -> Iterator[None]:
    """Have a module predict plain tensors for the time of a ``with`` block: ``numpy()`` refuses those with gradients.

    Args:
        module (nn.Module): Module.

    Yields:
        None: Nothing.
    """
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)
