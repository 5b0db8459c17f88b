# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Normal images of other categories, from which RegAD learns to register images (paper, section 3.2)."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from anomalib_mediclip.data.duplicates import content_hash
from anomalib_mediclip.encoders.weights import state_hash
from anomalib_mediclip.io import find_images
from anomalib_mediclip.models.components.feature_cache import FeatureCache, progress_bar
from anomalib_mediclip.models.reg_ad.episodes import draw_others

logger = logging.getLogger(__name__)


class TargetFingerprints:
    """What images of the category to test are recognised by: the content of their files, and pixels.

    Args:
        paths (Iterable[str | Path]): Files of the support set and of the test set.
        images (Iterable[torch.Tensor]): Images of the support set ``(3, H, W)`` as the model gets them.
    """

    def __init__(self, paths: Iterable[str | Path], images: Iterable[torch.Tensor]) -> None:
        self._files = {content_hash(path) for path in paths}
        self._images = {state_hash({"": image}) for image in images}

    def knows(self, path: Path, image: torch.Tensor) -> bool:
        """Tell whether an image belongs to the category to test, under whatever name.

        Args:
            path (Path): Its file.
            image (torch.Tensor): The image ``(3, H, W)`` as the model gets it.
        """
        return content_hash(path) in self._files or state_hash({"": image}) in self._images


class OtherCategories:
    """Folders of normal images, each of them one category.

    All images are read once: they are kept in memory up to the limit of the cache, and in a file beyond.

    Args:
        folders (Sequence[str | Path]): Folders, searched recursively.
        shots (int): Supports of each query.
        read (Callable[[Path], torch.Tensor]): Returns an image ``(3, H, W)`` in [0, 1] as the model gets it.
        target (TargetFingerprints): Images that must not be among them.
        cache (FeatureCache): Where the images are kept.
        title (str | None, optional): Title of a progress bar. Defaults to ``None``: no bar.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If a folder holds too few images, or one of the target.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        shots: int,
        read: Callable[[Path], torch.Tensor],
        target: TargetFingerprints,
        cache: FeatureCache,
        title: str | None = None,
    ) -> None:
        self._shots = shots
        found = [_find(folder, shots) for folder in folders]
        self.numbers = [len(paths) for paths in found]  # of images, in each folder
        paths = [path for listed in found for path in listed]
        self._images = cache.table(len(paths))
        with progress_bar(title, len(paths)) as progress:
            for row, path in enumerate(paths):
                image = read(path)
                if target.knows(path, image):
                    msg = (
                        f"{path} is an image of the support set or the test set, and RegAD registers images of other "
                        "categories. Remove it, or leave its folder out of --model.registration."
                    )
                    raise ValueError(msg)
                self._images.write([row], [image[None]])
                progress.update()
        logger.info("Registering %d images of %d folders beside the support set", len(paths), len(found))

    def draw(self, queries: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw a folder, queries from it, and other images of it for each query.

        A folder is as likely as it has images, so that all images are used about equally often.

        Args:
            queries (int): Number of queries; fewer where the folder has fewer images.
            generator (torch.Generator): Source of the draws, on the CPU.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Queries ``(B, 3, H, W)``, all different, and their supports
            ``(B, shots, 3, H, W)``, on the CPU.
        """
        folder = int(torch.multinomial(torch.tensor(self.numbers, dtype=torch.float64), 1, generator=generator))
        number, first = self.numbers[folder], sum(self.numbers[:folder])
        chosen = torch.randperm(number, generator=generator)[:queries]
        others = torch.stack([draw_others(number, own, self._shots, generator) for own in chosen.tolist()])
        (images,) = self._images.read((first + torch.cat([chosen, others.flatten()])).tolist())
        return images[: len(chosen)], images[len(chosen) :].unflatten(0, others.shape)


def _find(folder: str | Path, shots: int) -> list[Path]:
    """List the images of a folder, which must be enough for a query and its supports."""
    paths = find_images(folder)
    if len(paths) <= shots:
        msg = (
            f"{folder} holds {len(paths)} images, and a query with {shots} supports needs {shots + 1}. "
            "Leave the folder out of --model.registration, or lower --model.shots."
        )
        raise ValueError(msg)
    return paths
