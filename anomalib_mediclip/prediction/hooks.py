# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""How the models of the plugin predict: what Lightning asks of a model around its prediction loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anomalib.data import ImageBatch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from anomalib_mediclip.prediction.folder import prediction_loader, read_again
from anomalib_mediclip.prediction.table import PredictionTable

if TYPE_CHECKING:  # what it is mixed into
    from anomalib.models.components import AnomalibModule as Host
else:
    Host = object


class PredictionHooks(Host):
    """Mixin for an ``AnomalibModule``, named before it among the bases.

    Attributes:
        prediction_path (Path | None): Image or folder to predict when the engine is given no data;
            ``anomalib predict --data FOLDER`` sets it.
    """

    prediction_path: Path | None = None

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of ``prediction_path``.

        It is asked for after the checkpoint has been loaded, and so knows the pre-processor of the checkpoint.

        Returns:
            DataLoader: Loader.

        Raises:
            ValueError: If there is no path.
        """
        if self.prediction_path is None:
            msg = "There is nothing to predict: give Engine.predict a data_path, dataloaders or a datamodule."
            raise ValueError(msg)
        transform = getattr(self.pre_processor, "transform", None)
        return prediction_loader(self.prediction_path, self.hparams["image_size"], transform)

    def on_predict_batch_start(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Read again what anomalib's own prediction data set reads otherwise: it saturates 16-bit images.

        Args:
            batch (ImageBatch): Batch of images.
            batch_idx (int): Number of the batch.
            dataloader_idx (int, optional): Number of the data loader. Defaults to ``0``.
        """
        del batch_idx
        loaders: Any = self.trainer.predict_dataloaders
        read_again(batch, (loaders[dataloader_idx] if isinstance(loaders, list) else loaders).dataset)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return anomalib's callbacks, and the table of predictions.

        Returns:
            Sequence[Callback]: Callbacks.
        """
        return [*cast("Sequence[Callback]", super().configure_callbacks()), PredictionTable()]
