# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A folder of one's own images."""

from pathlib import Path
from typing import Any

from anomalib_mediclip.data.datamodule import FewShotDataModule
from anomalib_mediclip.data.samples import Sample, pair_masks
from anomalib_mediclip.io import find_images

DEFAULT_MASK_DIR = "masks"


class MedicalFolder(FewShotDataModule):
    """Images in folders for normal training, normal test and abnormal test images, with or without masks.

    Masks are paired with images by name (see :func:`anomalib_mediclip.data.samples.pair_masks`): ``1.png`` has
    ``1.png``, ``1_mask.png``, ``1_mask_1.png`` and so on. An image may have several masks or none; none means that the
    location of its lesion is unknown.

    Args:
        root (Path | str): Folder to which the others are relative.
        normal_dir (str): Normal images to draw the support set from.
        normal_test_dir (str): Normal test images.
        abnormal_dir (str): Abnormal test images.
        mask_dir (str | None): Masks of the abnormal images, also in sub-folders. The default ``"masks"`` may be
            missing, any other may not. None: image level only.
        name (str): Name of the data set, which becomes the name of the folder of results.
        **kwargs: Further arguments of :class:`FewShotDataModule`: ``k_shot``, ``seed``, batch sizes, ...

    Example:
        >>> datamodule = MedicalFolder("my_scans", normal_dir="healthy", k_shot=8, name="MyScans")
        >>> datamodule.name
        'MyScans'
    """

    expected_layout = "train/normal, test/normal, test/abnormal and perhaps masks"

    def __init__(
        self,
        root: Path | str = "./datasets/MedicalFolder",
        normal_dir: str = "train/normal",
        normal_test_dir: str = "test/normal",
        abnormal_dir: str = "test/abnormal",
        mask_dir: str | None = DEFAULT_MASK_DIR,
        name: str = "MedicalFolder",
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.normal_dir = normal_dir
        self.normal_test_dir = normal_test_dir
        self.abnormal_dir = abnormal_dir
        self.mask_dir = mask_dir
        self._name = name

    @property
    def name(self) -> str:  # type: ignore[override]  # a property in anomalib too
        """Name of the data set."""
        return self._name

    def read_layout(self) -> tuple[list[Sample], list[Sample]]:
        """List the images of the three folders.

        Raises:
            FileNotFoundError: If a folder is missing.
            ValueError: If a folder is empty or a mask fits no image or several.
        """
        pool = [Sample(path) for path in find_images(self.root / self.normal_dir)]
        normal = [Sample(path) for path in find_images(self.root / self.normal_test_dir)]
        images = find_images(self.root / self.abnormal_dir)
        pairs = self._pair_masks(images)
        return pool, [*normal, *(Sample(image, True, pairs.get(image, ())) for image in images)]

    def _pair_masks(self, images: list[Path]) -> dict[Path, tuple[Path, ...]]:
        """Find the masks of the abnormal images."""
        if self.mask_dir is None:
            return {}
        folder = self.root / self.mask_dir
        if self.mask_dir == DEFAULT_MASK_DIR and not folder.exists():
            return {}
        return pair_masks(images, find_images(folder), self.root / self.abnormal_dir, folder)
