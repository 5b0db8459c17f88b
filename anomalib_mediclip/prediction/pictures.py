# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of predictions that a person can read: image, heat map on a fixed colour scale, outlines, score."""

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.visualization import ImageVisualizer
from lightning import LightningModule, Trainer
from PIL import Image, ImageDraw

from anomalib_mediclip.drawing import BACKGROUND, GREEN, RED, Picture, colours, heat_map, outline, write_caption
from anomalib_mediclip.io import file_of, read_image
from anomalib_mediclip.prediction.folder import PredictionDataset, is_unreadable, predicted_dataset
from anomalib_mediclip.prediction.naming import picture_name
from anomalib_mediclip.prediction.threads import in_threads

logger = logging.getLogger(__name__)

PANEL_HEIGHT = 288  # pixels
MARGIN = 8
CAPTION_HEIGHT = 26
TITLE_HEIGHT = 20
SCALE_WIDTH = 14  # of the colour scale beside the heat map


class MedicalVisualizer(ImageVisualizer):
    """Write one picture for every tested or predicted image.

    From left to right: the image in its own aspect ratio; the anomaly map over it, on a colour scale that is the same
    for all images (0 to 1, the threshold in the middle); the outlines of the predicted region (red) and of the ground
    truth where there is one (green). The caption gives file, calibrated score and decision.

    Args:
        output_dir (str | Path | None, optional): Folder to write to. Defaults to ``None``: ``images`` in the folder of
            the run.
    """

    def __init__(self, output_dir: str | Path | None = None) -> None:
        super().__init__(output_dir=output_dir)

    def visualize(self, predictions: Any) -> Any:
        """Draw an item, or every item of a batch."""
        if isinstance(predictions, ImageItem):
            return draw_prediction(predictions)
        return [draw_prediction(item) for item in predictions]

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the pictures of a batch."""
        del pl_module, outputs, batch_idx
        folder, root = pictures_folder(trainer, self), root_of_names(trainer, dataloader_idx)

        def write(item: ImageItem) -> None:
            target = folder / picture_name(item.image_path or "image", root)
            target.parent.mkdir(parents=True, exist_ok=True)
            draw_prediction(item).save(target, compress_level=1)

        in_threads(write, [item for item in batch if not is_unreadable(item)])

    on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the pictures of a test are; the table of predictions says it of theirs."""
        del pl_module
        folder = pictures_folder(trainer, self)
        if trainer.is_global_zero and folder.is_dir():
            logger.info("Wrote the pictures of the test to %s", folder)


def pictures_folder(trainer: Trainer, visualizer: ImageVisualizer) -> Path:
    """Return the folder that a visualizer writes to.

    Args:
        trainer (Trainer): Trainer that tests or predicts.
        visualizer (ImageVisualizer): Visualizer of the model.

    Returns:
        Path: Folder, which need not exist.
    """
    return Path(visualizer.output_dir or Path(trainer.default_root_dir) / "images")


def root_of_names(trainer: Trainer, dataloader_idx: int) -> Path | None:
    """Return the folder below which images are named: the data module's, or the one that holds the predicted folder.

    Args:
        trainer (Trainer): Trainer that tests or predicts.
        dataloader_idx (int): Number of the loader.

    Returns:
        Path | None: Folder; None if the data set has none.
    """
    dataset = predicted_dataset(trainer, dataloader_idx) if trainer.predicting else None
    if isinstance(dataset, PredictionDataset):
        path = dataset.path.absolute()
        return path.parent if path.is_dir() else path.parent.parent
    return getattr(getattr(trainer, "datamodule", None), "root", None)


def draw_prediction(item: ImageItem) -> Image.Image:
    """Draw what was predicted for one image.

    Args:
        item (ImageItem): Item with ``image_path`` or ``image``, and calibrated ``anomaly_map``, ``pred_mask``,
            ``pred_score``, ``pred_label`` as far as they were predicted, and ``gt_mask``, ``gt_label`` as far as known.

    Returns:
        Image.Image: RGB picture.
    """
    picture = _panel_image(item)
    panels = [("image", picture)]
    if item.anomaly_map is not None:
        panels.append(("anomaly map", _with_heat_map(picture, item.anomaly_map)))
    if item.pred_mask is not None:
        title = "outline: predicted red, true green" if _known(item.gt_mask) else "outline: predicted red"
        panels.append((title, _with_outlines(picture, item)))
    width = sum(panel.shape[1] + MARGIN for _, panel in panels) + MARGIN
    canvas = Image.new("RGB", (width, CAPTION_HEIGHT + TITLE_HEIGHT + PANEL_HEIGHT + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    write_caption(draw, (MARGIN, 5), _caption(item), 14, width - 2 * MARGIN)
    left = MARGIN
    for title, panel in panels:
        write_caption(draw, (left, CAPTION_HEIGHT), title, 12, panel.shape[1])
        canvas.paste(Image.fromarray(panel), (left, CAPTION_HEIGHT + TITLE_HEIGHT))
        left += panel.shape[1] + MARGIN
    return canvas


def pixels_of(item: ImageItem) -> Picture:
    """Read the image of an item at its own size.

    Args:
        item (ImageItem): Item with ``image_path`` or ``image``.

    Returns:
        Picture: uint8 RGB ``(H, W, 3)``.
    """
    image = torch.as_tensor(item.image) if item.image_path is None else read_image(item.image_path)
    pixels: Picture = (image.as_subclass(torch.Tensor).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
    return pixels


def _panel_image(item: ImageItem) -> Picture:
    """Return the image at the height of a panel, uint8 RGB ``(H, W, 3)``."""
    pixels = pixels_of(item)
    width = max(64, min(2 * PANEL_HEIGHT, round(PANEL_HEIGHT * pixels.shape[1] / pixels.shape[0])))
    return np.ascontiguousarray(cv2.resize(pixels, (width, PANEL_HEIGHT), interpolation=cv2.INTER_AREA))


def _with_heat_map(picture: Picture, anomaly_map: torch.Tensor) -> Picture:
    """Blend the map over the image, more opaque where it is higher, and put the colour scale beside it."""
    values = anomaly_map.squeeze().float().cpu().clamp(0, 1).numpy()
    blended = heat_map(picture, values, lowest=0.2, highest=0.7)
    scale = colours(np.repeat(np.linspace(1, 0, PANEL_HEIGHT, dtype=np.float32)[:, None], SCALE_WIDTH, axis=1))
    gap = np.full((PANEL_HEIGHT, 4, 3), BACKGROUND, np.uint8)
    panel = Image.fromarray(np.concatenate([blended, gap, scale, np.tile(gap, (1, 7, 1))], axis=1))
    left = blended.shape[1] + SCALE_WIDTH + 8
    draw = ImageDraw.Draw(panel)
    for value in (1.0, 0.5, 0.0):
        top = min(PANEL_HEIGHT - 12, max(0, round((1 - value) * PANEL_HEIGHT) - 6))
        write_caption(draw, (left, top), f"{value}", 11, 30)
    return np.asarray(panel)


def _with_outlines(picture: Picture, item: ImageItem) -> Picture:
    """Draw the outlines of the predicted and the true region over the image."""
    for mask, colour in ((item.gt_mask, GREEN), (item.pred_mask, RED)):
        if mask is not None:
            picture = outline(picture, mask.squeeze().float().cpu().numpy(), colour, thickness=2, smooth=True)
    return picture


def _known(mask: torch.Tensor | None) -> bool:
    """Tell whether there is a true region to draw."""
    return mask is not None and bool(mask.any())


def _caption(item: ImageItem) -> str:
    """Return file, score, decision and truth in words."""
    names = {True: "anomalous", False: "normal"}
    parts = [_name(item.image_path)] if item.image_path else []
    if item.pred_score is not None:
        parts.append(f"score {float(item.pred_score):.2f}")
    if item.pred_label is not None:
        parts.append(f"predicted {names[bool(item.pred_label)]}")
    if item.gt_label is not None:
        parts.append(f"truth {names[bool(item.gt_label)]}")
    return "   ".join(parts)


def _name(path: str) -> str:
    """Return the name of a file, with the number of the slice of a volume."""
    file, number = file_of(path)
    return file.name if number is None else f"{file.name}, slice {number}"
