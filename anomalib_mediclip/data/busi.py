# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""BUSI: breast ultrasound images with masks.

Al-Dhabyani, Gomaa, Khaled, Fahmy: Dataset of breast ultrasound images. Data in Brief 28 (2020).
"""

from pathlib import Path, PurePath
from typing import Any

from anomalib_mediclip.data.datamodule import FewShotDataModule
from anomalib_mediclip.data.masks import pair_masks
from anomalib_mediclip.data.samples import Sample

POOL_SIZE = 32


class BUSI(FewShotDataModule):
    """Breast ultrasound, in the layout in which its authors distribute it.

    ``benign``, ``malignant`` and ``normal`` hold ``X.png`` with its masks ``X_mask.png``, ``X_mask_1.png``, ... beside
    it. The first 32 normal images in natural order are the training pool; the other 101 and all 647 with a tumour are
    the test set (paper, section 3.1).

    Args:
        root (Path | str): Folder with the three, or the one above it.
        **kwargs: Further arguments of :class:`FewShotDataModule`: ``k_shot``, ``seed``, batch sizes, ...
    """

    expected_layout = "benign/, malignant/ and normal/ with the masks (X_mask.png) beside the images"

    def __init__(self, root: Path | str = "./datasets/Dataset_BUSI_with_GT", **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)

    def read_layout(self) -> tuple[list[Sample], list[Sample]]:
        """List the images of the three folders.

        Raises:
            FileNotFoundError: If a folder is missing.
            ValueError: If a mask fits no image or several.
        """
        folder = self._find_layout(("benign", "malignant", "normal"), nested="Dataset_BUSI_with_GT")
        normal = [Sample(image) for image in self.find_images(folder / "normal") if not is_mask(image)]
        tumours = [*self._read_tumours(folder / "benign"), *self._read_tumours(folder / "malignant")]
        return normal[:POOL_SIZE], [*normal[POOL_SIZE:], *tumours]

    def _read_tumours(self, folder: Path) -> list[Sample]:
        """List the images of a folder with the masks beside them."""
        files = self.find_images(folder)
        images = [path for path in files if not is_mask(path)]
        pairs = pair_masks(images, [path for path in files if is_mask(path)], folder, folder)
        return [Sample(image, True, pairs.get(image, ())) for image in images]


def is_mask(path: PurePath) -> bool:
    """Tell a mask from an image by its name.

    Args:
        path (PurePath): File of the data set.

    Returns:
        bool: Whether it is a mask.
    """
    return "_mask" in path.stem.casefold()
