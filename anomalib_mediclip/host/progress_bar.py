# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Bar of progress of a prediction: it counts images, and slices of volumes, where Lightning's counts batches."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch.utils.data import DataLoader, IterableDataset


class ImageBar(RichProgressBar):
    """Lightning's bar, but for predictions."""

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        """Number of images that are predicted by this process."""
        return self._images(super().total_predict_batches_current_dataloader)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images of a batch."""
        del trainer, pl_module, outputs, batch, dataloader_idx
        if self.is_enabled and self.progress is not None and self.predict_progress_bar_id is not None:
            self.progress.update(self.predict_progress_bar_id, completed=self._images(batch_idx + 1))
            self.refresh()

    def _images(self, batches: float) -> float:
        """Return the number of images in the first batches."""
        loaders: Any = self.trainer.predict_dataloaders
        loader = loaders[self._current_eval_dataloader_idx or 0] if isinstance(loaders, list) else loaders
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return batches
        # Lightning gives a loader of predictions another sampler, by which the loader itself has no batch size
        batch_size: int = getattr(loader.batch_sampler, "batch_size", None) or loader.batch_size or 1
        return min(batches * batch_size, len(loader.dataset))  # type: ignore[arg-type]


class ImageCount(Callback):
    """Makes Lightning's bar count images. A bar of another class stays what it is."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change the class of the bar, as anomalib does in trainings."""
        del pl_module
        if type(trainer.progress_bar_callback) is RichProgressBar:
            trainer.progress_bar_callback.__class__ = ImageBar
