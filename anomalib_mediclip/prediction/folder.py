# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Loader of the images of a folder, for predictions: it reads ahead of the model and survives unreadable files.

anomalib reads a folder one image at a time between two steps of the model, and ends at the first damaged file. Here
worker processes decode, and an unreadable file is replaced by a black image that carries the reason.
"""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, ImageItem, PredictDataset
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import Resize, Transform
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.io import describe_skipped, file_of, is_slice, read_header, read_image, search, slices_of

logger = logging.getLogger(__name__)

BATCH_SIZE = 8  # 32 are no faster on a CPU, and take a quarter more memory
MAX_WORKERS = 4
MAX_IMAGES_WITHOUT_WORKERS = 64
UNREADABLE = "unreadable"


class PredictionDataset(Dataset):
    """The images of a folder, at their full depth.

    Args:
        path (str | Path): Image, slice or volume, or folder that is searched recursively.
        image_size (tuple[int, int]): Height and width in pixels that stand in for an unreadable image.
        transform (Transform | None, optional): Applied to every image. Defaults to ``None``.
        left_out (Path | None, optional): Folder of results that is not searched. Defaults to ``None``.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the folder holds no image.
    """

    def __init__(
        self,
        path: str | Path,
        image_size: tuple[int, int],
        transform: Transform | None = None,
        left_out: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.paths = _images_of(self.path, left_out)
        self.image_size = image_size
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageItem:
        """Return an image, or a black one and the reason in ``explanation``.

        Args:
            index (int): Position in ``paths``.

        Returns:
            ImageItem: Image of shape ``(3, H, W)``, float32 RGB in [0, 1]; its path; an empty ``explanation`` or
                ``"unreadable: ..."``.
        """
        path, explanation = self.paths[index], ""
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            image, explanation = torch.zeros(3, *self.image_size), f"{UNREADABLE}: {error}"
        image = self.transform(image) if self.transform else image
        return ImageItem(image=image, image_path=str(path), explanation=explanation)


def _images_of(path: Path, left_out: Path | None) -> list[Path]:
    """List the images of a path in natural order, without those in a folder of results."""
    if not file_of(path)[0].exists():
        msg = f"no file or folder {path} (absolute: {path.absolute()}): check the path"
        raise FileNotFoundError(msg)
    if not path.is_dir():
        return slices_of(path)
    try:
        found = search(path, () if left_out is None else (left_out,))
    except ValueError as error:
        if left_out is None or not left_out.exists():
            raise
        msg = (
            f"no images in {path} but results of former runs in {left_out}, which are not predicted ({error}). "
            "Give the folder of the images, or a folder within the results."
        )
        raise ValueError(msg) from error
    skipped = f"; skipped {describe_skipped(found.skipped)}" if found.skipped else ""
    logger.info("%s: %d images%s", path, len(found.images), skipped)
    return found.images


def results_within(path: str | Path, root: Path, model: str) -> Path | None:
    """Return the folder of results that lies in a folder to predict, and would be predicted in the next run.

    Args:
        path (str | Path): Folder to predict.
        root (Path): Folder below which results are written.
        model (str): Name of the model, which is that of its folder in ``root``.

    Returns:
        Path | None: The root, or the model's folder where the root also holds the images; None if neither lies inside
            ``path``, as where the user gives a folder of results.

    Example:
        >>> results_within("/study", Path("/study/results"), "MediCLIP")
        PosixPath('/study/results')
        >>> results_within("/study", Path("/study"), "MediCLIP")
        PosixPath('/study/MediCLIP')
        >>> results_within("/study/results/MediCLIP/v0/images", Path("/study/results"), "MediCLIP")
    """
    given, root = Path(path).resolve(), root.resolve()
    return next((folder for folder in (root, root / model) if given in folder.parents), None)


def is_unreadable(item: ImageItem) -> bool:
    """Tell whether an item stands in for a file that could not be read.

    Args:
        item (ImageItem): Item of a :class:`PredictionDataset`, or any other.

    Returns:
        bool: True if there is nothing to be predicted.
    """
    return (item.explanation or "").startswith(f"{UNREADABLE}: ")


def keeps_whole_images(transform: Transform | None) -> bool:
    """Tell whether a transform only resizes, so that a map covers the whole image.

    Args:
        transform (Transform | None): Transform of the model's pre-processor.

    Returns:
        bool: False for what crops or pads, and for all that is not known here.
    """
    return transform is None or isinstance(transform, Resize)


def prediction_loader(
    path: str | Path, image_size: tuple[int, int], transform: Transform | None, left_out: Path | None = None
) -> DataLoader:
    """Return a loader of a folder, with worker processes if the folder is large.

    Images are resized while they are loaded, and batched, if that is all that the pre-processor does; otherwise they
    come one at a time as they are.

    Args:
        path (str | Path): Image or folder.
        image_size (tuple[int, int]): Height and width in pixels that the model expects.
        transform (Transform | None): Transform of the model's pre-processor; it is applied again to the loaded images.
        left_out (Path | None, optional): Folder of results that is not searched. Defaults to ``None``.

    Returns:
        DataLoader: Loader in natural order of the files.
    """
    resizes = isinstance(transform, Resize) and len(transform.size or ()) == 2  # height and width
    dataset = PredictionDataset(path, image_size, transform if resizes else None, left_out)
    workers = min(MAX_WORKERS, os.cpu_count() or 1) if len(dataset) > MAX_IMAGES_WITHOUT_WORKERS else 0
    if any(is_slice(image) for image in dataset.paths):
        workers = 0  # each process would unpack every volume, and keep one
    return DataLoader(
        dataset, batch_size=BATCH_SIZE if resizes else 1, num_workers=workers, collate_fn=ImageBatch.collate
    )


def predicted_dataset(trainer: Trainer, dataloader_idx: int) -> Any:
    """Return the data set of a loader of a trainer that predicts."""
    loaders: Any = trainer.predict_dataloaders
    return (loaders[dataloader_idx] if isinstance(loaders, list) else loaders).dataset


class FullDepthImages(Callback):
    """Replaces the images that anomalib's own prediction data set saturates (16-bit), reads transparent or turned."""

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Read such images of a batch again, and bring them to the size that the others have by now."""
        del pl_module, batch_idx
        if not isinstance(predicted_dataset(trainer, dataloader_idx), PredictDataset) or batch.image is None:
            return
        size = list(batch.image.shape[-2:])
        for index, path in enumerate(batch.image_path or []):
            if not read_header(path).is_plain:
                batch.image[index] = resize(read_image(path), size, antialias=True).to(batch.image)
