# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Several data sets as one, for a model that serves all of them."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pandas as pd
from anomalib import TaskType
from torch.utils.data import DataLoader

from anomalib_mediclip.data.auxiliary import AuxiliaryData
from anomalib_mediclip.data.datamodule import MAX_CACHED_IMAGES, FewShotDataModule, hash_of_contents
from anomalib_mediclip.data.dataset import MedicalDataset, image_names
from anomalib_mediclip.data.duplicates import shared_images, warn_of_duplicates
from anomalib_mediclip.data.samples import Sample, listed
from anomalib_mediclip.data.specification import make_datamodule, shared_arguments
from anomalib_mediclip.data.support_set import BalancedSampler
from anomalib_mediclip.data.synthetic_validation import SyntheticValidationDataset
from anomalib_mediclip.io import read_image
from anomalib_mediclip.seeds import used_seed

logger = logging.getLogger(__name__)

INSPECTED_IMAGES = 8  # support images of each set, whose colours are looked at
LEAST_COLOUR = 0.02  # mean difference of channels in [0, 1]; JPEG files of grey images have less


class UnifiedData(FewShotDataModule):
    """The support sets of several data sets to train one model on, and the union of their test sets.

    This is the n-way k-shot setting of the paper's section 2.1: k images are drawn from each set, the same ones that
    its own data module draws with this seed. Every training batch has equally many images of each set. Each row of the
    ``samples`` of the three sets names its data set in the column ``data_set``. Metrics of the union compare scores of
    different organs with each other; to get those of one set, test the model on one of the :attr:`parts`.

    Images of normal patients of a set without masks count in the union as normal in every pixel, and its abnormal
    images as unknown in every pixel, which pixel metrics leave out.

    Args:
        parts (dict[str, dict[str, Any]] | None): Data sets by name, at least one, each as ``class_path`` and
            ``init_args`` of a :class:`FewShotDataModule`. Arguments that all data modules have are given to this one
            and hold for all: ``k_shot`` (of each set), ``seed``, batch sizes, ...
        **kwargs: Further arguments of :class:`FewShotDataModule`.

    Raises:
        ValueError: If there are no parts, or a part is no such data module or sets an argument that holds for all.

    Example:
        >>> brain = {"class_path": "BrainMRI", "init_args": {"root": "datasets/brain_tumor_dataset"}}
        >>> breast = {"class_path": "BUSI", "init_args": {"root": "datasets/Dataset_BUSI_with_GT"}}
        >>> datamodule = UnifiedData({"brain": brain, "breast": breast}, k_shot=16)
        >>> datamodule.parts["brain"].k_shot
        16
    """

    expected_layout = "the folders of its parts"

    def __init__(self, parts: dict[str, dict[str, Any]] | None = None, **kwargs: Any) -> None:
        if not parts:
            msg = "data.parts is empty: give the data sets to train on by name, each with class_path and init_args"
            raise ValueError(msg)
        shared = shared_arguments(FewShotDataModule) | kwargs
        made = {
            name: make_datamodule(FewShotDataModule, f"data.parts.{name}", part, shared) for name, part in parts.items()
        }
        with_auxiliary = [name for name, part in made.items() if isinstance(part, AuxiliaryData)]
        if with_auxiliary:
            msg = f"data.parts.{with_auxiliary[0]} is an AuxiliaryData, whose real anomalies would not be trained on"
            raise ValueError(msg)
        super().__init__(root=_common_folder(part.root for part in made.values()), **kwargs)
        self._parts = made

    @property
    def parts(self) -> dict[str, FewShotDataModule]:
        """Data modules of the sets by name; each can test a model on its set alone."""
        return self._parts

    def read_layout(self) -> tuple[list[Sample], list[Sample]]:
        """List the images of all parts."""
        pools, tests = zip(*(part.read_samples() for part in self.parts.values()), strict=True)
        return [sample for pool in pools for sample in pool], [sample for test in tests for sample in test]

    def read_samples(self) -> tuple[list[Sample], list[Sample]]:
        """List the images of all parts; see :meth:`FewShotDataModule.read_samples`."""
        return self.read_layout()

    def make_splits(self) -> None:
        """Draw the support sets of the parts and join their sets, once."""
        if self.support_set:
            return
        self.seed = used_seed(self.seed)
        parts = self.parts
        for name, part in parts.items():
            part.seed = self.seed
            try:
                part.make_splits()
            except ValueError as error:
                msg = f"data.parts.{name}: {error}"
                raise ValueError(msg) from error
        self._compare_parts()
        is_small = sum(len(part.support_set) for part in parts.values()) <= MAX_CACHED_IMAGES
        self.train_data = MedicalDataset(_joined({name: part.train_data for name, part in parts.items()}), is_small)
        self.val_data = SyntheticValidationDataset(self.train_data, seed=self.seed)
        self.test_data = MedicalDataset(_joined({name: part.test_data for name, part in parts.items()}))
        described = {name: part.describe() for name, part in parts.items()}
        self._pool_size = sum(int(part["pool_size"]) for part in described.values())
        hashes = "".join(f"{name}\0{part['test_set_hash']}\0" for name, part in described.items())
        self._test_set_hash = hashlib.sha256(hashes.encode()).hexdigest()
        support = [image for part in parts.values() for image in part.support_set]
        self.support_set, self.support_set_hash = support, hash_of_contents(support)
        numbers = ", ".join(f"{part['k_shot']} of {name}" for name, part in described.items())
        logger.info("%s, seed %d: trains on %d images: %s", self.name, self.seed, len(support), numbers)

    def describe(self) -> dict[str, str | int]:
        """Describe the data as :meth:`FewShotDataModule.describe` does; ``k_shot`` is the number of all images."""
        return super().describe() | {"data_set": f"{self.name} ({', '.join(self.parts)})"}

    def train_dataloader(self) -> DataLoader:
        """Return the loader of the support sets; every batch has equally many images of each, up to one."""
        sets = self.train_data.samples["data_set"]
        groups = [sets.index[sets == name].tolist() for name in self.parts]
        return self._make_training_loader(self.train_data, BalancedSampler(groups, used_seed(self.seed)))

    def _compare_parts(self) -> None:
        """Refuse a file that is in two support sets, warn of images that are in several sets, and of colours."""
        for (first, one), (second, other) in permutations(self.parts.items(), 2):
            twice = sorted(set(map(_resolved, one.support_set)) & set(map(_resolved, other.support_set)))
            if twice:
                msg = (
                    f"data.parts.{first} and data.parts.{second} train on the same files ({listed(twice)}): an image "
                    "belongs to one data set, so give other folders"
                )
                raise ValueError(msg)
            warn_of_duplicates(one.support_set, [Path(path) for path in other.test_data.samples["image_path"]])
        for (first, one), (second, other) in combinations(self.parts.items(), 2):
            copies = [f"{here} = {there}" for here, there in shared_images(one.support_set, other.support_set)]
            if copies:
                logger.warning("%s and %s train on copies of the same images (%s)", first, second, "; ".join(copies))
        coloured = [name for name, part in self.parts.items() if _have_colour(part.support_set)]
        grey = [name for name in self.parts if name not in coloured]
        if coloured and grey:
            logger.warning(
                "images of %s are in colour, those of %s are grey: all are read as RGB, grey ones with three equal "
                "channels",
                ", ".join(coloured),
                ", ".join(grey),
            )


def _joined(datasets: dict[str, Any]) -> pd.DataFrame:
    """Return the samples of data sets, with their names and with names of images that do not tell where a set lies."""
    frames = []
    for name, dataset in datasets.items():
        if len(dataset):
            names = {path: f"{name}/{image}" for path, image in image_names(dataset).items()}
            paths = dataset.samples["image_path"]
            frames.append(dataset.samples.assign(data_set=name, image_name=paths.map(names)))
    joined = pd.concat(frames, ignore_index=True) if frames else next(iter(datasets.values())).samples
    with_masks = any(dataset.task == TaskType.SEGMENTATION for dataset in datasets.values())
    joined.attrs["task"] = TaskType.SEGMENTATION if with_masks else TaskType.CLASSIFICATION
    return joined


def _common_folder(roots: Iterable[Path]) -> Path:
    """Return the folder that holds all folders."""
    return Path(os.path.commonpath([root.absolute() for root in roots]))


def _resolved(path: Path) -> str:
    """Return the file that a path leads to."""
    return str(path.resolve())


def _have_colour(images: Sequence[Path]) -> bool:
    """Tell whether the channels of any of the first images differ by more than what compression does."""
    pixels = map(read_image, images[:INSPECTED_IMAGES])
    return any((image.amax(dim=0) - image.amin(dim=0)).mean() > LEAST_COLOUR for image in pixels)
