# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""How the models of the plugin are exported: anomalib's exporters, with what they leave open decided."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_mediclip.models.quiet import quiet

if TYPE_CHECKING:  # what it is mixed into
    from anomalib_mediclip.models.precision import EncoderPrecision as Host
else:
    Host = object

logger = logging.getLogger(__name__)

ONNX_OPSET = 18  # the first that the exporter needs no conversion for


class ExportHooks(Host):
    """Mixin for an ``AnomalibModule``, named before it and before :class:`EncoderPrecision` among the bases."""

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export to a PyTorch file, the encoder in float32.

        Args:
            export_root (Path | str): Folder to write to.
            model_file_name (str, optional): Name of the file without extension. Defaults to ``"model"``.

        Returns:
            Path: The file.
        """
        with self.float32_encoder():
            return super().to_torch(export_root, model_file_name)

    def to_onnx(  # type: ignore[override]  # as anomalib declares it
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Export to ONNX, the encoder in float32.

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
        with quiet("onnx_ir", "onnxscript"), self.float32_encoder():
            return super().to_onnx(export_root, model_file_name, input_size, **kwargs)
