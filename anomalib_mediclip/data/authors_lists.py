# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Layout in which the authors of MediCLIP release their data sets.

``samples/train.json`` and ``samples/test.json`` hold one JSON object a line with ``filename``, ``label``, ``clsname``
and, for segmented images, ``mask``. Whoever has these lists gets the authors' own split.
"""

import json
from pathlib import Path

from anomalib_mediclip.data.samples import Sample, require_files

# what a list may call an image, in lower case
IS_ABNORMAL = {
    **dict.fromkeys(("0", "normal", "good"), False),
    **dict.fromkeys(("1", "abnormal", "anomalous", "anomaly"), True),
}


def has_release(root: Path) -> bool:
    """Tell whether a folder holds the authors' lists.

    Args:
        root (Path): Root of the data set.

    Returns:
        bool: True if both lists are there.
    """
    return all(path.is_file() for path in _list_files(root))


def read_release(root: Path) -> tuple[list[Sample], list[Sample]]:
    """Read the authors' lists.

    Args:
        root (Path): Root of the data set; the paths in the lists are relative to it or to its ``images`` folder.

    Returns:
        tuple[list[Sample], list[Sample]]: Training pool and test set, in the order of the lists.

    Raises:
        ValueError: If a line is broken or the training list holds an abnormal image.
        FileNotFoundError: If images or masks are missing.
    """
    train_file, test_file = _list_files(root)
    pool, test = _read_list(train_file, root), _read_list(test_file, root)
    abnormal = [sample.image.name for sample in pool if sample.is_abnormal]
    if abnormal:
        msg = f"{train_file} lists abnormal images ({', '.join(abnormal[:5])}): only normal images can be trained on"
        raise ValueError(msg)
    require_files(path for sample in (*pool, *test) for path in (sample.image, *sample.masks))
    return pool, test


def _list_files(root: Path) -> tuple[Path, Path]:
    """Return where the two lists are expected."""
    return root / "samples" / "train.json", root / "samples" / "test.json"


def _read_list(path: Path, root: Path) -> list[Sample]:
    """Read one list."""
    lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1)
    return [_parse(line, f"{path}, line {number}", root) for number, line in lines if line.strip()]


def _parse(line: str, where: str, root: Path) -> Sample:
    """Turn one line into a sample."""
    try:
        entry = json.loads(line)
        image, label, mask = entry["filename"], entry["label"], entry.get("mask")
        is_abnormal = IS_ABNORMAL[str(label).lower()]
        masks = (_resolve(mask, root),) if mask and is_abnormal else ()
        return Sample(_resolve(image, root), is_abnormal, masks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = (
            f"{where}: {error!r}; expected a JSON object with 'filename', 'label' (one of {', '.join(IS_ABNORMAL)}) "
            "and optionally 'mask'"
        )
        raise ValueError(msg) from error


def _resolve(name: str, root: Path) -> Path:
    """Return the path of a listed file."""
    beside_lists = root / name
    return beside_lists if beside_lists.is_file() else root / "images" / name
