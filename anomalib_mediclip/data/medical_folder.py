# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A folder of one's own images."""

import logging
from itertools import permutations
from pathlib import Path
from typing import Any

from anomalib_mediclip.data.datamodule import FewShotDataModule
from anomalib_mediclip.data.masks import may_hold_masks, pair_masks, split_masks
from anomalib_mediclip.data.samples import Sample, listed
from anomalib_mediclip.data.volume_masks import abnormal_samples

logger = logging.getLogger(__name__)

DEFAULT_NORMAL_TEST_DIR = "test/normal"
DEFAULT_ABNORMAL_DIR = "test/abnormal"
DEFAULT_MASK_DIR = "masks"


class MedicalFolder(FewShotDataModule):
    """Images in folders for normal training, normal test and abnormal test images, with or without masks.

    Masks are paired with images by name (see :func:`anomalib_mediclip.data.masks.pair_masks`): ``1.png`` has
    ``1.png``, ``1_mask.png``, ``1_mask_1.png`` and so on. An image may have several masks or none; none means that the
    location of its lesion is unknown. Files that look like masks (``1_mask.png`` beside ``1.png``, a folder ``masks``
    or ``labels``) are never taken for images. A volume gives one image for every slice; the slices of an abnormal
    volume are abnormal where its mask shows a lesion. Without abnormal images a model is trained and calibrated, and
    not tested.

    Args:
        root (Path | str): Folder to which the others are relative.
        normal_dir (str): Normal images to draw the support set from.
        normal_test_dir (str | None): Normal test images. The default ``"test/normal"`` may be missing. None: there are
            none.
        abnormal_dir (str | None): Abnormal test images. The default ``"test/abnormal"`` may be missing. None: there
            are none.
        mask_dir (str | None): Masks of the abnormal images, also in sub-folders, also beside the images. The default
            ``"masks"`` may be missing, any other may not. None: image level only.
        name (str): Name of the data set, which becomes the name of the folder of results.
        **kwargs: Further arguments of :class:`FewShotDataModule`: ``k_shot``, ``seed``, batch sizes, ...

    Example:
        >>> datamodule = MedicalFolder("my_scans", normal_dir="healthy", k_shot=8, name="MyScans")
        >>> datamodule.name
        'MyScans'
    """

    expected_layout = "train/normal, and for a test also test/normal, test/abnormal and perhaps masks"

    def __init__(
        self,
        root: Path | str = "./datasets/MedicalFolder",
        normal_dir: str = "train/normal",
        normal_test_dir: str | None = DEFAULT_NORMAL_TEST_DIR,
        abnormal_dir: str | None = DEFAULT_ABNORMAL_DIR,
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
            ValueError: If a folder is empty or within another one, or a mask fits no image or several.
        """
        pool_folder = self.root / self.normal_dir
        normal_folder = self._test_folder(self.normal_test_dir, DEFAULT_NORMAL_TEST_DIR)
        abnormal_folder = self._test_folder(self.abnormal_dir, DEFAULT_ABNORMAL_DIR)
        _refuse_overlaps([folder for folder in (pool_folder, normal_folder, abnormal_folder) if folder is not None])
        pool = [Sample(image) for image in self._find(pool_folder)[0]]
        normal = [] if normal_folder is None else [Sample(image) for image in self._find(normal_folder)[0]]
        if abnormal_folder is None:
            return pool, normal
        images, masks_beside = self._find(abnormal_folder)
        pairs = self._pair_masks(images, masks_beside, abnormal_folder)
        return pool, [*normal, *abnormal_samples(images, pairs)]

    def _test_folder(self, given: str | None, default: str) -> Path | None:
        """Return a folder of test images, None if there are none."""
        if given is None or (given == default and not (self.root / given).exists()):
            return None
        return self.root / given

    def _find(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """List the images of a folder, and the masks among them."""
        mask_folder = None if self.mask_dir is None else self.root / self.mask_dir
        # masks beside the images are told by their names
        is_apart = mask_folder is not None and not folder.is_relative_to(mask_folder)
        images, masks = split_masks(self.find_images(folder), folder, mask_folder if is_apart else None)
        if not images:
            msg = f"{folder} holds masks only ({masks[0].name}, ...): give the folder of the images"
            raise ValueError(msg)
        if masks:
            logger.warning(
                "%d files in %s look like masks (%s) and are not used as images", len(masks), folder, listed(masks)
            )
        return images, masks

    def _pair_masks(self, images: list[Path], masks_beside: list[Path], folder: Path) -> dict[Path, tuple[Path, ...]]:
        """Find the masks of the abnormal images."""
        if self.mask_dir is None:
            return {}
        mask_folder = self.root / self.mask_dir
        if self.mask_dir == DEFAULT_MASK_DIR and not mask_folder.exists():
            self._say_where_masks_may_be(masks_beside)
            return {}
        masks = masks_beside if folder.is_relative_to(mask_folder) else self.find_images(mask_folder)
        if not masks:
            msg = f"no masks in {mask_folder}: beside images they must be called X_mask.png or lie in a folder masks"
            raise ValueError(msg)
        return pair_masks(images, masks, folder, mask_folder)

    def _say_where_masks_may_be(self, masks_beside: list[Path]) -> None:
        """Say that nothing is evaluated per pixel, and what may be meant to be masks."""
        named = [path for path in sorted(self.root.rglob("*")) if path.is_dir() and may_hold_masks(path.name)]
        candidates = dict.fromkeys(path.relative_to(self.root) for path in (*named, *(m.parent for m in masks_beside)))
        logger.warning(
            "no folder %s: the evaluation is per image, not per pixel.%s",
            self.root / DEFAULT_MASK_DIR,
            f" Give data.mask_dir if these hold the masks: {listed(list(candidates))}." if candidates else "",
        )


def _refuse_overlaps(folders: list[Path]) -> None:
    """Refuse folders that hold the same images."""
    for inner, outer in permutations(folders, 2):
        if inner.resolve().is_relative_to(outer.resolve()):
            msg = (
                f"{inner} lies within {outer}, so that images would be of both: give folders for normal training, "
                "normal test and abnormal test images that do not contain each other"
            )
            raise ValueError(msg)
