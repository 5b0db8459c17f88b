# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The images on which formats are compared, and their labels if they are known."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2.functional import resize

from anomalib_mediclip.data import FewShotDataModule
from anomalib_mediclip.io import find_images, read_image

LABELLED = ("normal", "abnormal")  # sub-folders of a folder whose images have labels


@dataclass(frozen=True)
class ComparedImages:
    """Image files in the order in which they are predicted.

    Args:
        paths (list[Path]): Files.
        labels (np.ndarray | None): True where anomalous, shape ``(N,)``; None if the labels are not known.
    """

    paths: list[Path]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def batches(self, batch_size: int, image_size: tuple[int, int]) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Read the images batch by batch.

        Args:
            batch_size (int): Images in a batch; the last one may have fewer.
            image_size (tuple[int, int]): Height and width in pixels.

        Yields:
            tuple[np.ndarray, list[np.ndarray]]: Images resized with antialiasing, ``(B, 3, H, W)``, and the same
            images as they are, each ``(1, 3, H_i, W_i)``; float32 RGB in [0, 1].
        """
        for start in range(0, len(self), batch_size):
            originals = [read_image(path) for path in self.paths[start : start + batch_size]]
            resized = torch.stack([resize(image, list(image_size), antialias=True) for image in originals])
            yield resized.numpy(), [image[None].numpy() for image in originals]

    def thinned(self, number: int | None) -> "ComparedImages":
        """Keep some of the images, evenly spaced, so that the classes keep their shares.

        Args:
            number (int | None): How many to keep; None or more than there are keeps all.

        Returns:
            ComparedImages: Images.
        """
        if number is None or number >= len(self):
            return self
        kept = np.linspace(0, len(self) - 1, number).round().astype(int)
        return ComparedImages([self.paths[index] for index in kept], None if self.labels is None else self.labels[kept])


def find_compared_images(data: FewShotDataModule | None, folder: Path | None) -> ComparedImages:
    """Find the images of a folder, or the test images of a data module.

    Args:
        data (FewShotDataModule | None): Data module, used if there is no folder.
        folder (Path | None): Folder of images. If it has sub-folders ``normal`` and ``abnormal``, their images are
            taken, and labelled by them.

    Returns:
        ComparedImages: Images in natural order, normal ones first where labels are known.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If there is neither a folder nor a data module, or no image.
    """
    if folder is None:
        if data is None:
            msg = "There are no images to compare on: give --images FOLDER, or --data with --data.root."
            raise ValueError(msg)
        data.setup()
        samples: Any = data.test_data.samples
        return ComparedImages([Path(path) for path in samples.image_path], samples.label_index.to_numpy(dtype=bool))
    if not all((folder / name).is_dir() for name in LABELLED):
        return ComparedImages(find_images(folder))
    normal, abnormal = (find_images(folder / name) for name in LABELLED)
    return ComparedImages([*normal, *abnormal], np.repeat([False, True], [len(normal), len(abnormal)]))
