# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""List of the images of a data set, with their labels and masks."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from anomalib import TaskType
from pandas import DataFrame

LISTED_IN_ERRORS = 10

# "_mask", "-seg", " label" at the end of a name, with or without a number: "benign (4)_mask_1"
_MASK_SUFFIX = re.compile(r"[ _-](mask|seg|segmentation|label|gt)([ _-]?\d+)?$")


class Sample(NamedTuple):
    """An image, its label and its masks.

    Attributes:
        image (Path): Image file.
        is_abnormal (bool): Whether the image shows a lesion.
        masks (tuple[Path, ...]): Masks of its lesions; empty if the image is normal or the location is unknown.
    """

    image: Path
    is_abnormal: bool = False
    masks: tuple[Path, ...] = ()


def to_dataframe(samples: Sequence[Sample], split: str, task: TaskType) -> DataFrame:
    """Return the samples in the form that anomalib's data sets keep.

    Args:
        samples (Sequence[Sample]): Samples.
        split (str): ``"train"``, ``"val"`` or ``"test"``.
        task (TaskType): Segmentation if any image of the data set has a mask. It is a property of the whole set, so
            that normal images get a zero mask exactly if the abnormal ones have masks.

    Returns:
        DataFrame: Columns ``image_path`` (str), ``label`` (``"normal"`` or ``"abnormal"``), ``label_index`` (0 or 1),
            ``mask_path`` (a tuple of str, empty without a mask) and ``split``; the task is in ``attrs``.

    Raises:
        FileNotFoundError: If an image or a mask does not exist.
    """
    require_files(path for sample in samples for path in (sample.image, *sample.masks))
    dataframe = DataFrame(
        {
            "image_path": [str(sample.image) for sample in samples],
            "label": ["abnormal" if sample.is_abnormal else "normal" for sample in samples],
            "label_index": [int(sample.is_abnormal) for sample in samples],
            "mask_path": [tuple(map(str, sample.masks)) for sample in samples],
            "split": split,
        },
    )
    dataframe.attrs["task"] = task
    return dataframe


def require_files(paths: Iterable[Path]) -> None:
    """Check that files exist.

    Args:
        paths (Iterable[Path]): Files.

    Raises:
        FileNotFoundError: If some do not; names the first ten of them.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        listed = ", ".join(missing[:LISTED_IN_ERRORS])
        msg = f"{len(missing)} files of the data set are missing: {listed}; complete the data set or correct its lists"
        raise FileNotFoundError(msg)


def pair_masks(
    images: Sequence[Path],
    masks: Sequence[Path],
    image_folder: Path,
    mask_folder: Path,
) -> dict[Path, tuple[Path, ...]]:
    """Find the masks of each image by name, never by position.

    A mask belongs to the image of the same stem, regardless of case, or to the one whose stem it continues with
    ``_mask``, ``_seg``, ``_segmentation``, ``_label`` or ``_gt`` (or ``-mask``, `` mask``, ...) and perhaps a number:
    ``benign (4)_mask_1.png`` belongs to ``benign (4).png``. Where images in several sub-folders share a stem, the
    sub-folder of the mask decides.

    Args:
        images (Sequence[Path]): Images, all under ``image_folder``.
        masks (Sequence[Path]): Masks, all under ``mask_folder``.
        image_folder (Path): Folder to which the sub-folders of images are relative.
        mask_folder (Path): Folder to which the sub-folders of masks are relative.

    Returns:
        dict[Path, tuple[Path, ...]]: Masks of each image, in the order given; images without a mask are left out.

    Raises:
        ValueError: If a mask belongs to no image or to several.

    Example:
        >>> images = [Path("i/1.png"), Path("i/10.png")]
        >>> pairs = pair_masks(images, [Path("m/10_mask.png")], Path("i"), Path("m"))
        >>> [(image.name, masks[0].name) for image, masks in pairs.items()]
        [('10.png', '10_mask.png')]
    """
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image.stem.casefold()].append(image)
    pairs: dict[Path, tuple[Path, ...]] = {}
    for mask in masks:
        stem = mask.stem.casefold()
        named = [image for key in {stem, _MASK_SUFFIX.sub("", stem)} for image in by_stem.get(key, [])]
        image = _only_image(mask, named, image_folder, mask_folder)
        pairs[image] = (*pairs.get(image, ()), mask)
    return pairs


def _only_image(mask: Path, named: list[Path], image_folder: Path, mask_folder: Path) -> Path:
    """Return the one image of a mask among those that its name fits."""
    if not named:
        msg = f"mask {mask} has no image of its name in {image_folder}: add the image, or rename or remove the mask"
        raise ValueError(msg)
    if len(named) > 1:
        folders = mask.relative_to(mask_folder).parent.parts
        beside = [image for image in named if _ends_with(folders, image.relative_to(image_folder).parent.parts)]
        # a sub-folder says more than none, which every folder "ends with"
        depth = max((len(image.parts) for image in beside), default=0)
        deepest = [image for image in beside if len(image.parts) == depth]
        if len(deepest) != 1:
            images = ", ".join(map(str, named))
            msg = f"mask {mask} fits several images ({images}): rename them so that each mask fits one"
            raise ValueError(msg)
        return deepest[0]
    return named[0]


def _ends_with(parts: tuple[str, ...], ending: tuple[str, ...]) -> bool:
    """Tell whether a tuple ends with another."""
    return parts[len(parts) - len(ending) :] == ending
