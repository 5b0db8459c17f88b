# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Images that a person calls normal: those of a folder, or those marked so in a review."""

import logging
import os
from pathlib import Path
from typing import NamedTuple

from anomalib_mediclip.corrections.reviewed_run import check_checkpoint, report_of_run
from anomalib_mediclip.corrections.trained import Trained
from anomalib_mediclip.data.datamodule import hash_of_contents
from anomalib_mediclip.data.samples import listed
from anomalib_mediclip.io import file_of, search
from anomalib_mediclip.models.components.training_record import CORRECTIONS, RECORD
from anomalib_mediclip.prediction.review import read_review

logger = logging.getLogger(__name__)


class NormalImage(NamedTuple):
    """An image that is normal.

    Attributes:
        path (Path): Image file, or slice of a volume.
        name (str): Name for tables: relative to the folder that was given.
        sha256 (str): SHA-256 of its content, by which it is recognised.
    """

    path: Path
    name: str
    sha256: str


class Offered(NamedTuple):
    """Images that are offered as normal.

    Attributes:
        new (list[NormalImage]): Images to add.
        known (list[NormalImage]): Images that a former correction added.
    """

    new: list[NormalImage]
    known: list[NormalImage]


def offered_images(trained: Trained, normal: Path, run: Path | None) -> Offered:
    """Return the images that are offered as normal, without copies of each other.

    Args:
        trained (Trained): Model that they are added to.
        normal (Path): Folder that is searched for images, or a review whose images marked normal are taken.
        run (Path | None): Folder of the run that was reviewed; None for that of the review.

    Returns:
        Offered: The images.

    Raises:
        FileNotFoundError: If the folder, the review, or a file that it marks does not exist.
        ValueError: If the review is that of another run or another model.
    """
    if normal.is_dir():
        names = {path: Path(os.path.relpath(path, normal)).as_posix() for path in search(normal).images}
    else:
        names = {path: str(path) for path in _marked_normal(trained, normal, run)}
    images: dict[str, NormalImage] = {}
    for path, name in names.items():
        image = NormalImage(path, name, hash_of_contents([path]))
        first = images.setdefault(image.sha256, image)
        if first is not image:
            logger.warning("%s is a copy of %s, and is skipped.", name, first.name)
    before = added_before(trained)
    known = [image for image in images.values() if image.sha256 in before]
    for image in known:
        logger.warning("%s was added before, as %s, and is not added again.", image.name, before[image.sha256])
    return Offered([image for image in images.values() if image.sha256 not in before], known)


def _marked_normal(trained: Trained, path: Path, run: Path | None) -> list[Path]:
    """Return the files that a review marks as normal."""
    review = read_review(path)
    check_checkpoint(report_of_run(review, path, run), {trained.sha256, *trained.ancestors}, trained.path)
    marked = [Path(file) for file, mark in review.marks.items() if mark == "normal"]
    gone = [file for file in marked if not file_of(file)[0].is_file()]
    if gone:
        msg = (
            f"{len(gone)} of {len(marked)} images that {path} marks as normal are not there: {listed(gone)}. Put them "
            "back, or call the command from the folder in which predict was called."
        )
        raise FileNotFoundError(msg)
    return marked


def added_before(trained: Trained) -> dict[str, str]:
    """Return the names of the images that former corrections added, by their SHA-256."""
    corrections = trained.content.get(RECORD, {}).get(CORRECTIONS, [])
    return {image["sha256"]: image["file"] for one in corrections for image in one.get("images", ())}


def original_support(trained: Trained, root: Path) -> list[Path]:
    """Return the images that a model was trained on.

    Args:
        trained (Trained): Model.
        root (Path): Folder of its data set.

    Returns:
        list[Path]: Images, all of them unchanged since.

    Raises:
        FileNotFoundError: If their list, or one of them, is missing.
        ValueError: If they are others than those of the training.
    """
    folders = trained.path.absolute().parents
    lists = [folder / "support_set.txt" for folder in folders[:3] if (folder / "support_set.txt").is_file()]
    if not lists:
        msg = f"There is no support_set.txt of {trained.path} beside it. Copy it there from the folder of the training."
        raise FileNotFoundError(msg)
    lines = lists[0].read_text(encoding="utf-8").splitlines()
    images = [root / line for line in lines if line and not line.startswith("#")]
    gone = [path for path in images if not file_of(path)[0].is_file()]
    if gone:
        msg = f"{len(gone)} of {len(images)} images of {lists[0]} are not in {root}: {listed(gone)}. Check --support."
        raise FileNotFoundError(msg)
    wanted = trained.content.get(RECORD, {}).get("data", {}).get("support_set_hash")
    if hash_of_contents(images) != wanted:
        msg = f"The images that {lists[0]} lists are not those below {root} that the model was trained on."
        raise ValueError(msg)
    return images


def check_known(trained: Trained, offered: Offered) -> None:
    """Refuse to go on without images that former corrections added.

    Args:
        trained (Trained): Model.
        offered (Offered): Images that are offered as normal.

    Raises:
        ValueError: If some are not among them.
    """
    given = {image.sha256 for image in offered.known}
    missing = [name for sha256, name in added_before(trained).items() if sha256 not in given]
    if missing:
        msg = (
            f"{len(missing)} images were added before and are needed again with --support: {listed(missing)}. Give "
            "--normal a folder that holds them beside the new ones."
        )
        raise ValueError(msg)
