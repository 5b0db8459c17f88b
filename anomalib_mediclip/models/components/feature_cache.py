# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patch features that a frozen encoder computes once, and a training reads many times.

Features lie in memory up to a limit, beyond it in a file without a name in the folder of the run. Such a file takes
space on the disk, and is gone when nothing refers to it any more, even if the process is killed.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from tqdm import tqdm

from anomalib_mediclip.encoders.vision_encoder import VisionEncoder

GIGABYTE = 10**9
CACHE_LIMIT = 4.0  # gigabytes in memory
ENCODED_AT_ONCE = 8  # images


class NoSpaceError(OSError):
    """There is no room for features.

    Attributes:
        needed (int): Bytes that they take.
        free (int): Bytes that are free.
        folder (Path): Where.
    """

    def __init__(self, needed: int, free: int, folder: Path) -> None:
        super().__init__(f"features of images take {readable(needed)}, and {folder} has {readable(free)} free")
        self.needed, self.free, self.folder = needed, free, folder

    def fitting(self, number: int) -> int:
        """Return how many of a number of equal things would have fitted.

        Args:
            number (int): Number for which there was no room.
        """
        return number * self.free // self.needed


def readable(size: int) -> str:
    """Return a number of bytes as people read it.

    Args:
        size (int): Bytes.

    Example:
        >>> readable(143_000_000), readable(4_100_000_000)
        ('143 MB', '4.1 GB')
    """
    return f"{size / GIGABYTE:.1f} GB" if size >= GIGABYTE else f"{size / 10**6:.0f} MB"


class FeatureCache:
    """Room for the features of one training, shared by its tables.

    Args:
        folder (Path): Folder of the run, for what exceeds the limit.
        limit (float, optional): Gigabytes (10^9 bytes) that are kept in memory. Defaults to ``4.0``.

    Raises:
        ValueError: If the limit is negative.

    Example:
        >>> table = FeatureCache(Path("results")).table(2)
        >>> table.write([0, 1], [torch.zeros(2, 8, 4, 4), torch.ones(2, 16, 2, 2)])
        >>> [block.shape for block in table.read([1])]
        [torch.Size([1, 8, 4, 4]), torch.Size([1, 16, 2, 2])]
    """

    def __init__(self, folder: Path, limit: float = CACHE_LIMIT) -> None:
        check_limit(limit)
        self._folder = folder
        self._left = int(limit * GIGABYTE)

    def table(self, rows: int) -> "FeatureTable":
        """Return an empty table.

        Args:
            rows (int): Number of images.
        """
        return FeatureTable(rows, self)

    def claim(self, size: int) -> bool:
        """Take memory for something that can be computed anew as well.

        Args:
            size (int): Bytes.

        Returns:
            bool: Whether that much was left; if not, nothing is taken.
        """
        fits = size <= self._left
        self._left -= size if fits else 0
        return fits

    def allocate(self, rows: int, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Make room for rows of tensors, all in memory or all in a file.

        Args:
            rows (int): Number of rows.
            like (Sequence[torch.Tensor]): What a row holds: tensors of that shape and type.

        Returns:
            list[torch.Tensor]: One tensor ``(rows, *shape)`` for each of these.

        Raises:
            NoSpaceError: If the disk has no room for the file.
        """
        needed = rows * sum(tensor.nbytes for tensor in like)
        if not self.claim(needed):
            return self._in_file(rows, like, needed)
        return [torch.empty(rows, *tensor.shape, dtype=tensor.dtype) for tensor in like]

    def _in_file(self, rows: int, like: Sequence[torch.Tensor], needed: int) -> list[torch.Tensor]:
        """Map a file of the folder, whose space is reserved at once: writing to a full disk would end the process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise NoSpaceError(needed, free, self._folder)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            try:
                _reserve(file.fileno(), needed)
            except OSError as error:
                raise NoSpaceError(needed, free, self._folder) from error
            memory = torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r+", shape=(needed,)))
        parts = memory.split([rows * tensor.nbytes for tensor in like])
        return [part.view(tensor.dtype).view(rows, *tensor.shape) for part, tensor in zip(parts, like, strict=True)]


class FeatureTable:
    """Tensors of a number of images, one row for each image, written once.

    Args:
        rows (int): Number of images.
        cache (FeatureCache): Where room is made, as soon as the shape of a row is known.
    """

    def __init__(self, rows: int, cache: FeatureCache) -> None:
        self._cache = cache
        self._rows = rows
        self._columns: list[torch.Tensor] = []

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return sum(column.nbytes for column in self._columns)

    def write(self, rows: Sequence[int], columns: Sequence[torch.Tensor]) -> None:
        """Write rows.

        Args:
            rows (Sequence[int]): Numbers of rows.
            columns (Sequence[torch.Tensor]): Tensors ``(B, ...)``, on any device; of the same shapes and types in
                every call.

        Raises:
            NoSpaceError: If there is no room for the table.
        """
        if not self._columns:
            self._columns = self._cache.allocate(self._rows, [column[0] for column in columns])
        for own, column in zip(self._columns, columns, strict=True):
            own[list(rows)] = column.to("cpu")

    def read(self, rows: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Tensor]:
        """Read rows.

        Args:
            rows (Sequence[int]): Numbers of rows that were written.
            device (torch.device | str, optional): Where the result is wanted. A GPU need not finish what it does
                before it gets them. Defaults to ``"cpu"``.

        Returns:
            list[torch.Tensor]: Tensors ``(B, ...)``, copies.
        """
        read = [column[list(rows)] for column in self._columns]
        if torch.device(device).type == "cpu":
            return read
        if torch.device(device).type == "cuda":
            read = [column.pin_memory() for column in read]
        return [column.to(device, non_blocking=True) for column in read]


class FeatureRelease(Callback):
    """Frees the features of a training when it ends, whatever ends it."""

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Free them before the test."""
        del trainer
        pl_module.forget_features()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Free them although the model may live on."""
        del trainer, exception
        pl_module.forget_features()


def check_limit(limit: float) -> None:
    """Refuse a limit that is none.

    Args:
        limit (float): Gigabytes that are kept in memory.

    Raises:
        ValueError: If it is negative or NaN.
    """
    if not limit >= 0:
        msg = f"cache_limit={limit}: give gigabytes from 0 (nothing is kept in memory) upwards."
        raise ValueError(msg)


def storage_type(encoder: VisionEncoder) -> torch.dtype:
    """Return the type in which features take half the space: that of the encoder if it has 16 bits, else float16.

    Args:
        encoder (VisionEncoder): Encoder.

    Returns:
        torch.dtype: ``torch.bfloat16``, which loses nothing then, or ``torch.float16``.
    """
    own = next(encoder.tower.parameters()).dtype
    return own if own in (torch.bfloat16, torch.float16) else torch.float16


def check_finite(features: Sequence[torch.Tensor], names: Sequence[str]) -> None:
    """Refuse features that are not finite: they would spread to everything that is learnt.

    Args:
        features (Sequence[torch.Tensor]): Patch features ``(B, C_j, H_j, W_j)``, one tensor for each tapped block, in
            the type in which they are kept.
        names (Sequence[str]): Names of the images.

    Raises:
        FloatingPointError: If there is NaN or infinity; names the first image, and what may help.
    """
    finite = torch.stack([feature.isfinite().flatten(1).all(dim=1) for feature in features]).all(dim=0)
    if finite.all():
        return
    halves = any(feature.dtype == torch.float16 for feature in features)
    cure = " or --model.views null, because they are kept in float16, whose largest number is 65504" if halves else ""
    msg = (
        f"The encoder's features of {names[int(finite.float().argmin())]} are not finite. Check the encoder's weights "
        f"(--model.weights), and use --model.encoder_precision float32{cure}."
    )
    raise FloatingPointError(msg)


def fill(
    table: FeatureTable,
    first_row: int,
    items: Iterable[tuple[str, Sequence[torch.Tensor]]],
    encode: Callable[[torch.Tensor], list[torch.Tensor]],
    progress: tqdm,
) -> None:
    """Encode images, and write their features and what belongs to them into rows that follow one another.

    Args:
        table (FeatureTable): Table.
        first_row (int): Row of the first image.
        items (Iterable[tuple[str, Sequence[torch.Tensor]]]): Name of each image for messages, the image ``(3, H, W)``,
            and further tensors that its row holds after the features.
        encode (Callable[[torch.Tensor], list[torch.Tensor]]): Returns the patch features of images ``(B, 3, H, W)`` as
            they are kept.
        progress (tqdm): Progress bar, which counts images.

    Raises:
        FloatingPointError: If features are not finite.
        NoSpaceError: If there is no room.
    """
    remaining = iter(items)
    while portion := list(islice(remaining, ENCODED_AT_ONCE)):
        names, tensors = zip(*portion, strict=True)
        images, *others = (torch.stack(column) for column in zip(*tensors, strict=True))
        features = encode(images)
        check_finite(features, names)
        table.write(range(first_row, first_row + len(names)), [*features, *others])
        first_row += len(names)
        progress.update(len(names))


def progress_bar(title: str | None, number: int, unit: str = "image") -> tqdm:
    """Return a progress bar that counts images, or something else.

    Args:
        title (str | None): Title; None for no bar.
        number (int): Number of images.
        unit (str, optional): What is counted. Defaults to ``"image"``.
    """
    return tqdm(total=number, desc=title, disable=title is None, leave=False, delay=1, unit=unit)


def _reserve(file: int, size: int) -> None:
    """Give a file its size, and its space on the disk where the system can do that."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)
