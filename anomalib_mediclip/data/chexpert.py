# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""CheXpert: chest radiographs.

Irvin et al.: CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison. AAAI (2019).
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from anomalib_mediclip.data.datamodule import FewShotDataModule
from anomalib_mediclip.data.samples import Sample
from anomalib_mediclip.io import natural_key

TEST_SIZE = 250  # of each class, as in the paper
TEST_SEED = 0
FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
)


class CheXpert(FewShotDataModule):
    """Chest radiographs in the layout of ``CheXpert-v1.0-small``; no masks.

    Frontal images only. Normal means "No Finding"; abnormal means at least one finding that is certain (label 1), other
    than support devices. The paper tests on 250 normal and 250 abnormal images but does not list them, so they are
    drawn here once and for all, with a seed of their own that the user's does not change, each from another patient
    (and from at most half of the normal patients, where there are few). The training pool is every other normal image
    of ``train.csv`` whose patient is not in the test set. With the authors' lists (``samples/train.json`` and
    ``samples/test.json`` in the root) their split is used instead.

    Args:
        root (Path | str): Folder with ``train.csv``, or the one above it.
        **kwargs: Further arguments of :class:`FewShotDataModule`: ``k_shot``, ``seed``, batch sizes, ...
    """

    expected_layout = "train.csv, valid.csv and the images that they list (CheXpert-v1.0-small)"

    def __init__(self, root: Path | str = "./datasets/CheXpert", **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)

    def read_layout(self) -> tuple[list[Sample], list[Sample]]:
        """Read the two lists and draw the test set.

        Raises:
            FileNotFoundError: If a list or the images are missing.
            ValueError: If a list lacks a column.
        """
        folder = self._find_layout(("train.csv", "valid.csv"), nested="CheXpert-v1.0-small")
        train, valid = (read_frontal(file) for file in (folder / "train.csv", folder / "valid.csv"))
        frontal = pd.concat([train, valid], ignore_index=True)
        is_normal, is_abnormal = frontal["is_normal"], frontal["is_abnormal"]
        half = frontal[is_normal]["patient"].nunique() // 2
        normal = _draw_patients(frontal[is_normal], min(TEST_SIZE, half))
        abnormal = _draw_patients(frontal[is_abnormal], TEST_SIZE)
        tested = {*normal["patient"], *abnormal["patient"]}
        pool = train[train["is_normal"] & ~train["patient"].isin(tested)]
        return _to_samples(pool, folder), [*_to_samples(normal, folder), *_to_samples(abnormal, folder, True)]


def read_frontal(path: Path) -> DataFrame:
    """Read the frontal images of a list of CheXpert.

    Args:
        path (Path): ``train.csv`` or ``valid.csv``.

    Returns:
        DataFrame: The list, and the columns ``patient`` (such as ``"patient00001"``), ``is_normal`` ("No Finding") and
            ``is_abnormal`` (a certain finding other than support devices); both are false where labels are uncertain.

    Raises:
        ValueError: If a column is missing.
    """
    table = pd.read_csv(path)
    missing = {"Path", "Frontal/Lateral", "No Finding", *FINDINGS} - set(table.columns)
    if missing:
        msg = f"{path} lacks the columns {', '.join(sorted(missing))}: use the list as CheXpert distributes it"
        raise ValueError(msg)
    frontal = table[table["Frontal/Lateral"] == "Frontal"]
    is_normal = frontal["No Finding"] == 1
    return frontal.assign(
        patient=frontal["Path"].str.extract(r"(patient\d+)", expand=False),
        is_normal=is_normal,
        is_abnormal=~is_normal & (frontal[list(FINDINGS)] == 1).any(axis=1),
    )


def _draw_patients(images: DataFrame, size: int) -> DataFrame:
    """Draw patients and take the first image of each."""
    first = images.drop_duplicates("patient").sort_values("patient", ignore_index=True)
    drawn = np.random.default_rng(TEST_SEED).choice(len(first), size=min(size, len(first)), replace=False)
    return first.iloc[np.sort(drawn)]


def _to_samples(images: DataFrame, folder: Path, is_abnormal: bool = False) -> list[Sample]:
    """Return samples in natural order; the listed paths start with the name of the data set's folder."""
    names = sorted(images["Path"], key=natural_key)
    return [Sample(_resolve(name, folder), is_abnormal) for name in names]


def without_folder(name: str) -> str:
    """Return a listed path relative to the folder of the lists.

    Args:
        name (str): Path of an image as CheXpert lists it, such as ``"CheXpert-v1.0-small/train/..."``.

    Returns:
        str: Path without the name of the data set's folder, which users rename.
    """
    return re.sub(r"^CheXpert-v1\.0[^/]*/", "", name)


def _resolve(name: str, folder: Path) -> Path:
    """Return the path of a listed image, whatever the folder of the data set has been renamed to."""
    below = folder / without_folder(name)
    return below if below.is_file() else folder.parent / name
