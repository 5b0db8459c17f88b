# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Raw predictions of a model for a test set, and the figures that follow from them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from sklearn.metrics import average_precision_score
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.atomic import written_beside
from anomalib_mediclip.evaluation import exact_aupro, exact_auroc
from anomalib_mediclip.evaluation.selection import outlined
from anomalib_mediclip.io import read_image

ANOMALOUS_EXAMPLES = 3
NORMAL_EXAMPLES = 1


class RawPredictions(Callback):
    """Collects the predictions of a test run: no calibration, no clamping, no sigmoid.

    Attributes:
        paths (list[str]): Test images in the order of the test set.
    """

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._scores: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []
        self._maps: list[torch.Tensor] = []
        self._masks: list[torch.Tensor] = []
        self._outlined: list[torch.Tensor] = []
        self._reconstructions: torch.Tensor | None = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect a batch."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        self.add(outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reconstruct the images that are shown, if the model reconstructs images."""
        model: Any = pl_module
        reconstruct: Any = getattr(getattr(model, "model", None), "reconstruct", None)
        if reconstruct is None:
            return
        dataset: Any = trainer.test_dataloaders.dataset  # type: ignore[union-attr]  # there is one, which was tested
        images = torch.stack([model.transformed(dataset[index].image) for index in self._draw_examples()])
        with torch.no_grad():
            self._reconstructions = reconstruct(images.to(pl_module.device)).cpu()

    def add(self, batch: Any) -> None:
        """Collect a batch with predictions and ground truth.

        Args:
            batch (Any): Batch of anomalib; a missing ``pred_score`` is the maximum of the anomaly map. Models that
                score whole images have no ``anomaly_map``.
        """
        self.paths += batch.image_path
        self._labels.append(batch.gt_label.bool().cpu())
        if batch.anomaly_map is None:
            self._scores.append(batch.pred_score.detach().float().cpu().flatten())
            return
        anomaly_map = batch.anomaly_map.detach().float().cpu().reshape(-1, *batch.anomaly_map.shape[-2:])
        score = anomaly_map.amax(dim=(-2, -1)) if batch.pred_score is None else batch.pred_score.detach().float().cpu()
        self._scores.append(score.flatten())
        self._maps.append(anomaly_map)
        has_mask = batch.gt_mask is not None
        self._masks.append(batch.gt_mask.bool().cpu() if has_mask else torch.zeros_like(anomaly_map).bool())
        self._outlined.append(outlined(batch).cpu() & has_mask)

    @property
    def scores(self) -> torch.Tensor:
        """Raw image scores, float32 of shape ``(N,)``."""
        return torch.cat(self._scores)

    @property
    def labels(self) -> torch.Tensor:
        """Ground truth of the images, bool of shape ``(N,)``."""
        return torch.cat(self._labels)

    def metrics(self) -> dict[str, float]:
        """Compute the figures of a row of the benchmark.

        Returns:
            dict[str, float]: ``image_auroc``, ``image_aupr`` and, over images with known pixels if there are anomalous
            ones among them, ``pixel_auroc`` and ``aupro``; all exact, in [0, 1].
        """
        figures = {
            "image_auroc": exact_auroc(self.scores, self.labels).item(),
            "image_aupr": float(average_precision_score(self.labels, self.scores)),
        }
        if not self._maps:
            return figures
        known = torch.cat(self._outlined)
        masks = torch.cat(self._masks)[known]
        if masks.any():
            maps = torch.cat(self._maps)[known]
            figures["pixel_auroc"] = exact_auroc(maps.flatten(), masks.flatten()).item()
            figures["aupro"] = exact_aupro(maps, masks)
        return figures

    def save(self, path: Path, root: Path, with_examples: bool) -> None:
        """Write the image scores, and the maps of a few images for the report.

        Args:
            path (Path): File to write, ``.npz``.
            root (Path): Folder of the data set; images are named by their path below it.
            with_examples (bool): Whether to keep anomaly maps of three anomalous images and a normal one, drawn
                without regard to any score.
        """
        names = [Path(os.path.relpath(name, root)).as_posix() for name in self.paths]
        arrays: dict[str, Any] = {
            "names": np.array(names),
            "labels": self.labels.numpy(),
            "scores": self.scores.numpy(),
        }
        if with_examples and self._maps:
            arrays |= self._examples()
        with written_beside(path) as unfinished:
            np.savez_compressed(unfinished, **arrays)

    def _examples(self) -> dict[str, np.ndarray]:
        """Return some images with their masks and anomaly maps."""
        chosen = self._draw_examples()
        maps = torch.cat(self._maps)[chosen]
        size = list(maps.shape[-2:])
        images = [resize(read_image(self.paths[index]), size, antialias=True) for index in chosen]
        reconstructed = {} if self._reconstructions is None else {"reconstructions": _as_bytes(self._reconstructions)}
        return reconstructed | {
            "examples": np.array(chosen),
            "images": _as_bytes(torch.stack(images)),
            "masks": torch.cat(self._masks)[chosen].numpy().astype(np.uint8),
            "maps": maps.numpy(),
        }

    def _draw_examples(self) -> list[int]:
        """Draw the images to show: outlined ones where there are any; the same for every model."""
        generator = np.random.default_rng(0)
        labels, has_outline = self.labels.numpy(), torch.cat(self._masks).flatten(1).any(dim=1).numpy()
        anomalous = np.flatnonzero(has_outline if has_outline.any() else labels)
        normal = np.flatnonzero(~labels)
        drawn = [
            generator.choice(pool, min(count, len(pool)), replace=False)
            for pool, count in ((anomalous, ANOMALOUS_EXAMPLES), (normal, NORMAL_EXAMPLES))
        ]
        return np.concatenate([np.sort(positions) for positions in drawn]).tolist()


def _as_bytes(images: torch.Tensor) -> np.ndarray:
    """Return images ``(N, C, H, W)`` in [0, 1] as uint8 ``(N, H, W, 3)``."""
    pixels = (images.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(*pixels.shape[:3], 3).numpy()
