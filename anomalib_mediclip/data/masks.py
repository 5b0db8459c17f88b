# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Which files are masks, and of which image."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from anomalib_mediclip.io import file_of

# "_mask", "-seg", " label" at the end of a name, with or without a number: "benign (4)_mask_1"
_MASK_SUFFIX = re.compile(r"[ _-](mask|seg|segmentation|label|gt)([ _-]?\d+)?$")
_MASK_FOLDER = re.compile(r"mask|label|ground[ _-]?truth", re.IGNORECASE)  # how the name of a folder of masks begins
_PERHAPS_MASK_FOLDER = re.compile(r"mask|label|ground[ _-]?truth|gt$|seg|annot|box|contour|roi", re.IGNORECASE)
_IMAGE_FOLDER = re.compile(r"(images?|imgs?)$", re.IGNORECASE)


def split_masks(files: Sequence[Path], folder: Path, mask_folder: Path | None = None) -> tuple[list[Path], list[Path]]:
    """Tell images from masks among the files of a folder.

    A mask lies in the folder of masks, or in one whose name begins with ``mask``, ``label`` or ``ground_truth``; or it
    lies beside ``X.png`` and is called ``X_mask.png``, ``X_seg.png`` and so on.

    Args:
        files (Sequence[Path]): Files, all under ``folder``.
        folder (Path): Folder that was searched.
        mask_folder (Path | None, optional): Folder all of whose files are masks. Defaults to ``None``.

    Returns:
        tuple[list[Path], list[Path]]: Images and masks, in the order given.

    Example:
        >>> images, masks = split_masks([Path("i/1.png"), Path("i/1_mask.png"), Path("i/labels/2.png")], Path("i"))
        >>> [image.name for image in images], [mask.name for mask in masks]
        (['1.png'], ['1_mask.png', '2.png'])
    """
    keys = {(file_of(path)[0].parent, _key(path)) for path in files}

    def is_mask(path: Path) -> bool:
        file, bare = file_of(path)[0], _key(path, bare=True)
        return (
            (mask_folder is not None and file.is_relative_to(mask_folder))
            or any(looks_like_masks(part) for part in file.relative_to(folder).parent.parts)
            or (bare != _key(path) and (file.parent, bare) in keys)
        )

    return [path for path in files if not is_mask(path)], [path for path in files if is_mask(path)]


def looks_like_masks(name: str) -> bool:
    """Tell whether a folder of this name holds masks.

    Args:
        name (str): Name of a folder.

    Returns:
        bool: Whether it begins with ``mask``, ``label`` or ``ground_truth``.
    """
    return _MASK_FOLDER.match(name) is not None


def may_hold_masks(name: str) -> bool:
    """Tell whether a folder of this name is worth a hint, although its files are not taken for masks unasked.

    Args:
        name (str): Name of a folder.

    Returns:
        bool: Whether its name begins like one of masks, boxes, segmentations, annotations and the like.
    """
    return _PERHAPS_MASK_FOLDER.match(name) is not None


def pair_masks(
    images: Sequence[Path],
    masks: Sequence[Path],
    image_folder: Path,
    mask_folder: Path,
) -> dict[Path, tuple[Path, ...]]:
    """Find the masks of each image by name, never by position.

    A mask belongs to the image of the same stem, regardless of case and of the form of accents; without one, to that
    whose stem it continues with ``_mask``, ``_seg``, ``_segmentation``, ``_label`` or ``_gt`` (or ``-mask``, `` mask``,
    ...) and perhaps a number: ``benign (4)_mask_1.png`` belongs to ``benign (4).png``, and slice 7 of
    ``1_mask.nii.gz`` to slice 7 of ``1.nii.gz``. Where images in several sub-folders share a stem, the sub-folder of
    the mask decides.

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
    by_stem: dict[tuple[str, int | None], list[Path]] = defaultdict(list)
    for image in images:
        by_stem[_key(image)].append(image)
    pairs: dict[Path, tuple[Path, ...]] = {}
    for mask in masks:
        named = by_stem.get(_key(mask)) or by_stem.get(_key(mask, bare=True), [])
        image = _only_image(mask, named, image_folder, mask_folder)
        pairs[image] = (*pairs.get(image, ()), mask)
    return pairs


def _key(path: Path, bare: bool = False) -> tuple[str, int | None]:
    """Return the stem of a name as names are compared, without what marks a mask if asked, and the number of a slice.

    macOS writes accents apart, Linux in one character.
    """
    file, index = file_of(path)
    stem = unicodedata.normalize("NFC", file.stem).casefold()
    key = stem.removesuffix(".nii") if file.suffix.lower() == ".gz" else stem
    return _MASK_SUFFIX.sub("", key) if bare else key, index


def _only_image(mask: Path, named: list[Path], image_folder: Path, mask_folder: Path) -> Path:
    """Return the one image of a mask among those that its name fits."""
    if not named:
        msg = f"mask {mask} has no image of its name in {image_folder}: add the image, or rename or move the mask"
        raise ValueError(msg)
    if len(named) > 1:
        place = _place(mask, mask_folder)
        beside = [image for image in named if _ends_with(place, _place(image, image_folder))]
        # a sub-folder says more than none, which every folder "ends with"
        depth = max((len(image.parts) for image in beside), default=0)
        deepest = [image for image in beside if len(image.parts) == depth]
        if len(deepest) != 1:
            images = ", ".join(map(str, named))
            msg = f"mask {mask} fits several images ({images}): rename them so that each mask fits one"
            raise ValueError(msg)
        return deepest[0]
    return named[0]


def _place(path: Path, folder: Path) -> tuple[str, ...]:
    """Return the sub-folders of a file, without those that only tell images from masks."""
    parts = file_of(path)[0].relative_to(folder).parent.parts
    return tuple(part for part in parts if not looks_like_masks(part) and not _IMAGE_FOLDER.match(part))


def _ends_with(parts: tuple[str, ...], ending: tuple[str, ...]) -> bool:
    """Tell whether a tuple ends with another."""
    return parts[len(parts) - len(ending) :] == ending
