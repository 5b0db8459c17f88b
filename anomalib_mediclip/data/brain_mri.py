# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""BrainMRI: Kaggle's "Brain MRI Images for Brain Tumor Detection" (Chakrabarty, 2019)."""

from pathlib import Path
from typing import Any

from anomalib_mediclip.data.datamodule import FewShotDataModule
from anomalib_mediclip.data.samples import Sample

POOL_SIZE = 32
NORMAL_TEST_SIZE = 65


class BrainMRI(FewShotDataModule):
    """Slices of brain MRI with (``yes``) and without (``no``) a tumour; no masks.

    The first 32 images without a tumour in natural order are the training pool and the next 65 the normal test images
    (one is left over); all 155 with a tumour are the abnormal ones (paper, section 3.1).

    Args:
        root (Path | str): Folder with ``yes`` and ``no``, or the one above it.
        **kwargs: Further arguments of :class:`FewShotDataModule`: ``k_shot``, ``seed``, batch sizes, ...
    """

    expected_layout = "yes/ and no/"

    def __init__(self, root: Path | str = "./datasets/brain_tumor_dataset", **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)

    def read_layout(self) -> tuple[list[Sample], list[Sample]]:
        """List the images of the two folders.

        Raises:
            FileNotFoundError: If a folder is missing.
        """
        folder = self._find_layout(("yes", "no"), nested="brain_tumor_dataset")
        normal = [Sample(image) for image in self.find_images(folder / "no")]
        tumours = [Sample(image, is_abnormal=True) for image in self.find_images(folder / "yes")]
        return normal[:POOL_SIZE], [*normal[POOL_SIZE : POOL_SIZE + NORMAL_TEST_SIZE], *tumours]
