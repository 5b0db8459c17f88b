# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""List of the images of a data set, with their labels and masks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from anomalib import TaskType
from pandas import DataFrame

from anomalib_mediclip.io import file_of

LISTED_IN_ERRORS = 10


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


def listed(names: Sequence[str | Path]) -> str:
    """List the first ten names for a message.

    Args:
        names (Sequence[str | Path]): Names or paths.

    Returns:
        str: Names, and dots if there are more.

    Example:
        >>> listed(["a", "b"])
        'a, b'
    """
    return ", ".join(map(str, names[:LISTED_IN_ERRORS])) + (", ..." if len(names) > LISTED_IN_ERRORS else "")


def require_files(paths: Iterable[Path]) -> None:
    """Check that files exist.

    Args:
        paths (Iterable[Path]): Files.

    Raises:
        FileNotFoundError: If some do not; names the first ten of them.
    """
    missing = [str(path) for path in paths if not file_of(path)[0].is_file()]
    if missing:
        listed = ", ".join(missing[:LISTED_IN_ERRORS])
        msg = f"{len(missing)} files of the data set are missing: {listed}; complete the data set or correct its lists"
        raise FileNotFoundError(msg)
