# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Small sources that the tests of the preparation build, and what they read of the target."""

import shutil
from pathlib import Path

import pandas as pd

from tests.unit.data.small_datasets import save_image, save_mask


def save_busi(root: Path, normal: int = 8) -> Path:
    """Build a miniature of BUSI: one image in two classes, one with two masks, masks of normal images."""
    for number in range(1, normal + 1):
        save_image(root / f"normal/normal ({number}).png", seed=number)
        save_mask(root / f"normal/normal ({number})_mask.png")
    for name, seed in (("benign/benign (1)", 101), ("benign/benign (2)", 102), ("malignant/malignant (1)", 102)):
        save_image(root / f"{name}.png", seed=seed)
        save_mask(root / f"{name}_mask.png", row=seed % 10)
    save_mask(root / "benign/benign (1)_mask_1.png", row=20)
    return root


def zip_of(folder: Path, name: str = "source.zip", with_top: bool = True) -> Path:
    """Pack a folder, with or without its own name in the archive."""
    base = folder.parent / name.removesuffix(".zip")
    root, inside = (folder.parent, folder.name) if with_top else (folder, ".")
    return Path(shutil.make_archive(str(base), "zip", root, inside))


def content_of(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def manifest_of(target: Path) -> pd.DataFrame:
    """Read the manifest of a target, by source."""
    return pd.read_csv(target / "manifest.csv", keep_default_na=False).set_index("source")
