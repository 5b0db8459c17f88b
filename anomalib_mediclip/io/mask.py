# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading of masks: binary ones, label maps, and masks with soft edges."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn.functional import interpolate

from anomalib_mediclip.io.decoding import decode, read_header, warn_once
from anomalib_mediclip.io.errors import ImageFileError
from anomalib_mediclip.io.orientation import upright
from anomalib_mediclip.io.volumes import file_of

ASPECT_RATIO_TOLERANCE = 0.01
_LOSSY = ((0, b"\xff\xd8\xff"), (12, b"VP8 "), (4, b"jP  "), (4, b"ftypavi"))  # JPEG, WebP, JPEG 2000, AVIF
_RINGING = 0.2  # of the maximum: lower values of a lossy mask are ringing
_JITTER = 0.04  # of the maximum: by how much the values within a label differ in a lossy mask
_LABELS = 8  # a mask of more values has soft edges or is a map of many labels
_FAINT = 0.05  # of the maximum: what is lower in such a mask may be left by resizing
_RAMP = 0.03  # of the maximum: a plateau with lower steps around it is a part of a soft edge
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def read_mask(paths: Sequence[str | Path], size: tuple[int, int], image: str | Path | None = None) -> torch.Tensor:
    """Read the union of the masks of one image.

    Every value other than 0 is lesion, so that label maps keep all their labels (see :func:`lesion_of`). Soft edges
    are cut at half the height of the lesion that they belong to. (The official code takes every pixel that is not
    zero, which makes the ringing around the edges of a mask stored as JPEG lesion too.)

    Args:
        paths (Sequence[str | Path]): One or more mask files of the image.
        size (tuple[int, int]): Height and width of the image in pixels. A mask of another size is resized (nearest
            neighbour) if its aspect ratio is the same within 1 %.
        image (str | Path | None, optional): Image of the masks. If it is stored turned (EXIF), a mask that fits only
            its stored size is turned alike. Defaults to ``None``.

    Returns:
        torch.Tensor: Mask of shape ``(H, W)``, float32, 0 or 1.

    Raises:
        FileNotFoundError: If a file does not exist.
        ImageFileError: If a file cannot be decoded, a mask is empty, covers everything or has another aspect ratio.
        ValueError: If there is no mask.
    """
    if not paths:
        msg = "no mask files given: pass at least one path, or use a zero mask"
        raise ValueError(msg)
    return torch.stack([_read_one_mask(Path(path), size, image) for path in paths]).amax(dim=0)


def has_values(path: str | Path) -> bool:
    """Tell whether a mask marks anything.

    Args:
        path (str | Path): Mask file, or slice of one.

    Returns:
        bool: Whether a pixel is other than 0.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageFileError: If it cannot be decoded.
    """
    return bool(np.nan_to_num(decode(path, smooth=False).pixels).any())


def lesion_of(values: npt.NDArray[Any], ringing: float = 0.0, jitter: float = 0.0) -> npt.NDArray[np.bool_]:
    """Tell lesion from ground.

    A connected region above the ground is cut at half of its own maximum, which puts soft edges where they belong. The
    same holds around each window of 3 x 3 pixels of one value other than the ground, unless all steps around it are
    low: this is a lower label beside a higher one. In a mask of more than 8 values, regions of at most 5 % of the
    maximum without such a window are what resizing leaves around edges, and ground.

    Args:
        values (np.ndarray): Mask ``(H, W)``, 0 is the ground.
        ringing (float, optional): Values up to this one are ground. Defaults to ``0.0``.
        jitter (float, optional): Largest difference between values that count as one. Defaults to ``0.0``.

    Returns:
        np.ndarray: Lesion ``(H, W)``, bool.

    Example:
        >>> lesion_of(np.array([[0, 1, 0, 0, 2, 2]])).astype(int).tolist()
        [[0, 1, 0, 0, 1, 1]]
    """
    above = values > ringing
    if not above.any() or values[above].min() == values.max():
        return above
    lowest, highest = ndimage.minimum_filter(values, size=3), ndimage.maximum_filter(values, size=3)
    is_flat = (lowest > ringing) & (highest - lowest <= jitter)
    regions, count = ndimage.label(above, structure=_NEIGHBOURS)
    peaks = np.asarray(ndimage.maximum(values, regions, np.arange(count + 1)), dtype=np.float64)
    if np.unique(values).size > _LABELS:
        has_plateau = np.asarray(ndimage.maximum(is_flat, regions, np.arange(count + 1)), dtype=bool)
        peaks[(peaks <= _FAINT * values.max()) & ~has_plateau] = np.inf
    lesion = above & (values > peaks[regions] / 2)
    labels_inside = np.where(_without_slopes(is_flat, values, jitter), values, np.inf)
    return np.asarray(lesion | (values > ndimage.minimum_filter(labels_inside, size=5) / 2))


def _without_slopes(is_flat: npt.NDArray[np.bool_], values: npt.NDArray[Any], jitter: float) -> npt.NDArray[np.bool_]:
    """Leave out plateaus that lie on a gentle slope."""
    plateaus, count = ndimage.label(is_flat, structure=_NEIGHBOURS)
    index = np.arange(count + 1)
    above = ndimage.maximum(ndimage.maximum_filter(values, size=5), plateaus, index)
    below = ndimage.minimum(ndimage.minimum_filter(values, size=5), plateaus, index)
    is_label = np.asarray(above) - np.asarray(below) > max(_RAMP * float(values.max()), jitter)
    return np.asarray(is_flat & is_label[plateaus])


def _read_one_mask(path: Path, size: tuple[int, int], image: str | Path | None) -> torch.Tensor:
    """Return one mask ``(H, W)`` of ``size``, float32, 0 or 1."""
    values = np.nan_to_num(decode(path, smooth=False).pixels.max(axis=2).astype(np.float32))
    ringing, jitter = (_RINGING * values.max(), _JITTER * values.max()) if _is_lossy(path) else (0.0, 0.0)
    lesion = lesion_of(values, ringing, jitter)
    _check_area(path, lesion)
    lesion = upright(lesion, _orientation_for(path, lesion.shape, size, image))
    mask = torch.from_numpy(np.ascontiguousarray(lesion)).float()
    if tuple(mask.shape) == tuple(size):
        return mask
    return interpolate(mask[None, None], size=tuple(size), mode="nearest-exact")[0, 0]


def _is_lossy(path: Path) -> bool:
    """Tell by its first bytes whether a file may hold ringing."""
    with file_of(path)[0].open("rb") as file:
        head = file.read(16)
    return any(head[offset:].startswith(magic) for offset, magic in _LOSSY)


def _check_area(path: Path, lesion: npt.NDArray[np.bool_]) -> None:
    """Refuse a mask that says nothing, and warn of one that looks inverted."""
    if not lesion.any():
        msg = f"mask {path} is empty (all zero): draw the lesion in it, or take the file out of the folder of masks"
        raise ImageFileError(msg)
    if lesion.all():
        msg = f"mask {path} covers the whole image: draw the lesion only, on a ground of 0"
        raise ImageFileError(msg)
    border = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    if lesion.mean() > 0.5 and border.mean() > 0.5:
        warn_once(
            f"mask {path} takes {lesion.mean():.0%} of the image, and most of its border, for lesion: if it is drawn "
            "dark on a white ground, invert it"
        )


def _orientation_for(path: Path, found: tuple[int, ...], size: tuple[int, int], image: str | Path | None) -> int:
    """Return how a mask must be turned to fit its image."""
    if _same_shape(found, size):
        return 1
    orientation = 1 if image is None else read_header(image).orientation
    if orientation > 4 and _same_shape((found[1], found[0]), size):
        warn_once(f"mask {path} fits its image as stored, not as shown (EXIF orientation): it is turned like the image")
        return orientation
    msg = f"mask {path} is {found[1]}x{found[0]} pixels but its image {size[1]}x{size[0]}: use a mask of the same shape"
    raise ImageFileError(msg)


def _same_shape(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Tell whether two sizes have the same aspect ratio."""
    return abs((first[1] / first[0]) / (second[1] / second[0]) - 1) <= ASPECT_RATIO_TOLERANCE
