# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Training on real anomalies of another data set, such as an industrial one, in place of painted ones."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.errors import MisMatchError
from anomalib.data.utils import ValSplitMode
from lightning.pytorch.trainer.states import TrainerFn
from pandas import DataFrame
from torch.utils.data import DataLoader

from anomalib_mediclip.data.checks import usable
from anomalib_mediclip.data.datamodule import MAX_CACHED_IMAGES, FewShotDataModule, hash_of_names
from anomalib_mediclip.data.dataset import MedicalDataset
from anomalib_mediclip.data.samples import Sample, listed, to_dataframe
from anomalib_mediclip.data.specification import make_datamodule, shared_arguments
from anomalib_mediclip.data.support_set import SupportSampler
from anomalib_mediclip.seeds import used_seed

logger = logging.getLogger(__name__)


class RealAnomalies(MedicalDataset):
    """Real images with their true masks, which a model learns from in place of painted support images.

    Args:
        samples (DataFrame): As those of :class:`MedicalDataset`.
        support (AnomalibDataset): Support set of the medical data set, for everything but the training steps.
    """

    def __init__(self, samples: DataFrame, support: AnomalibDataset) -> None:
        super().__init__(samples, cache=len(samples) <= MAX_CACHED_IMAGES)
        self.support = support


class AuxiliaryData(FewShotDataModule):
    """Real anomalies of an auxiliary data set to train on, and a medical data set to calibrate and test with.

    This is the upper half of the paper's Table 5. All test images of the auxiliary data set, normal and anomalous, with
    their masks, take the place of painted support images. The support set of the medical data set still fills a memory
    bank and calibrates the model. Only models that learn from pairs of image and mask can be trained so: MediCLIP.

    Args:
        auxiliary (dict[str, Any] | None): Data module of anomalib or of this package, as ``class_path`` (a full path in
            YAML and on the command line) and ``init_args``. Where data modules of this class have a ``category`` and
            none is given, all categories below the folder are taken. Nothing is downloaded.
        medical (dict[str, Any] | None): :class:`FewShotDataModule`, likewise. Arguments that all of them have are given
            to this one: ``k_shot``, ``seed``, batch sizes, ...
        **kwargs: Further arguments of :class:`FewShotDataModule`.

    Raises:
        ValueError: If one of the two is no such data module, or an argument is given in two places.
        TypeError: If the medical data set is an ``AuxiliaryData``.

    Example:
        >>> industrial = {"class_path": "anomalib.data.MVTecAD", "init_args": {"root": "datasets/MVTecAD"}}
        >>> brain = {"class_path": "BrainMRI", "init_args": {"root": "datasets/brain_tumor_dataset"}}
        >>> AuxiliaryData(auxiliary=industrial, medical=brain, k_shot=4).medical.k_shot
        4
    """

    expected_layout = "the folders of its medical data set"

    def __init__(
        self, auxiliary: dict[str, Any] | None = None, medical: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        tested = make_datamodule(
            FewShotDataModule, "data.medical", medical, shared_arguments(FewShotDataModule) | kwargs
        )
        source = make_datamodule(AnomalibDataModule, "data.auxiliary", auxiliary, {})
        if isinstance(tested, AuxiliaryData):
            msg = "data.medical is an AuxiliaryData too: give the medical data set itself"
            raise TypeError(msg)
        super().__init__(root=tested.root, **kwargs)
        self.medical: FewShotDataModule = tested
        self.auxiliary: AnomalibDataModule = source
        self._specification = auxiliary or {}
        self._source_name = source.name
        self._source_hash = ""

    def setup(self, stage: str | None = None) -> None:
        """Make the sets; refuse a model that would take anomalous images for normal ones."""
        super().setup(stage)
        model = getattr(self.trainer, "lightning_module", None)
        if stage == TrainerFn.FITTING and not getattr(model, "LEARNS_REAL_ANOMALIES", False):
            msg = (
                f"{type(model).__name__} learns from normal images, and {self.name} gives it anomalous ones with their "
                "masks: train MediCLIP, or give the medical data set alone"
            )
            raise ValueError(msg)

    def read_layout(self) -> tuple[list[Sample], list[Sample]]:
        """List the images of the medical data set."""
        return self.medical.read_samples()

    def read_samples(self) -> tuple[list[Sample], list[Sample]]:
        """List the images of the medical data set; see :meth:`FewShotDataModule.read_samples`."""
        return self.read_layout()

    def all_samples(self) -> list[Sample]:
        """List the images of both data sets; see :meth:`FewShotDataModule.all_samples`."""
        return [*super().all_samples(), *self._read_auxiliary()]

    def make_splits(self) -> None:
        """Make the sets of the medical data set, and list the images of the auxiliary one, once."""
        if self.support_set:
            return
        medical = self.medical
        self.seed = medical.seed = used_seed(self.seed)
        real = self._read_auxiliary()
        medical.make_splits()
        self.train_data, self.val_data, self.test_data = medical.train_data, medical.val_data, medical.test_data
        self.real_anomalies = RealAnomalies(to_dataframe(real, "train", TaskType.SEGMENTATION), medical.train_data)
        described = medical.describe()
        self._pool_size = int(described["pool_size"])
        self._test_set_hash = str(described["test_set_hash"])
        self.support_set, self.support_set_hash = medical.support_set, medical.support_set_hash

    def train_dataloader(self) -> DataLoader:
        """Return the loader of the auxiliary images, in an order that depends on the seed and the epoch only."""
        real = self.real_anomalies
        real.augmentations = self.train_data.augmentations
        return self._make_training_loader(real, SupportSampler(len(real), used_seed(self.seed)))

    def describe(self) -> dict[str, str | int]:
        """Describe the data as :meth:`FewShotDataModule.describe` does, and what is trained on in place of painting."""
        auxiliary = {
            "auxiliary": self._source_name,
            "auxiliary_images": len(self.real_anomalies),
            "auxiliary_hash": self._source_hash,
        }
        return super().describe() | {"data_set": self.medical.name} | auxiliary

    def state_dict(self) -> dict[str, str]:
        """Return what a checkpoint keeps of the data: by what support set and auxiliary images are recognised."""
        return super().state_dict() | {"auxiliary_hash": self._source_hash}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Warn if a run is resumed with other data than it was started with."""
        super().load_state_dict(state_dict)
        resumes = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if resumes and state_dict.get("auxiliary_hash", self._source_hash) != self._source_hash:
            logger.warning("the run is resumed with other auxiliary images than it was started with")

    def _read_auxiliary(self) -> list[Sample]:
        """List the test images of all categories that are normal or have masks."""
        categories = self._categories()
        samples = [sample for category in categories for sample in self._read_category(category)]
        source = f"data.auxiliary ({self.auxiliary.name}{_below(self.auxiliary)})"
        unknown = [sample.image for sample in samples if sample.is_abnormal and not sample.masks]
        if unknown:
            logger.warning("%s: %d images without a mask are left out: %s", source, len(unknown), listed(unknown))
        pairs = [sample for sample in samples if sample.masks or not sample.is_abnormal]
        pairs = usable(pairs, "auxiliary images", self.on_error == "skip", decode=False)
        anomalous = sum(sample.is_abnormal for sample in pairs)
        if not anomalous:
            msg = (
                f"{source} has no anomalous test image with a mask ({len(samples)} test images, {len(unknown)} "
                "anomalous ones without a mask): give another data set, or its masks"
            )
            raise ValueError(msg)
        self._source_name = self.auxiliary.name + (f" ({', '.join(categories)})" if categories != [""] else "")
        self._source_hash = hash_of_names(pairs, Path(getattr(self.auxiliary, "root", ".")))
        logger.info(
            "%s: trains on %d images of %s, %d with anomalies", self.name, len(pairs), self._source_name, anomalous
        )
        return pairs

    def _categories(self) -> list[str]:
        """Return the categories to take: the given one or all; an empty name where there are none."""
        if not self.auxiliary.category or "category" in (self._specification.get("init_args") or {}):
            return [self.auxiliary.category]
        folder: Path = getattr(self.auxiliary, "split_root", None) or self.auxiliary.root  # type: ignore[attr-defined]
        found = sorted(test.parent.name for test in folder.glob("*/test") if test.is_dir())
        if not found:
            name = self.auxiliary.name
            msg = (
                f"no category of {name} in {folder} (absolute: {folder.resolve()}): expected <category>/test. Set root "
                f"in data.auxiliary.init_args; anomalib.data.{name}(root=...).prepare_data() fetches and sorts them"
            )
            raise FileNotFoundError(msg)
        return found

    def _read_category(self, category: str) -> list[Sample]:
        """List the test images of one category."""
        chosen = {"category": category} if category and category != self.auxiliary.category else {}
        source = self.auxiliary
        if chosen:
            source = make_datamodule(AnomalibDataModule, "data.auxiliary", self._specification, chosen)
        source.val_split_mode = ValSplitMode.NONE  # it would take images from the test set
        try:
            source.setup()
        except (MisMatchError, OSError, RuntimeError, ValueError) as error:
            msg = (
                f"data.auxiliary: {source.name} cannot read {category or 'its images'}{_below(source)}: {error}. Every "
                "anomalous test image needs its mask"
            )
            raise ValueError(msg) from error
        rows: Any = source.test_data.samples
        return [Sample(Path(row.image_path), bool(row.label_index), _paths(row.mask_path)) for row in rows.itertuples()]


def _below(datamodule: AnomalibDataModule) -> str:
    """Say where a data module looks for its images, if it says so."""
    root = getattr(datamodule, "root", None)
    return f" in {root}" if root else ""


def _paths(masks: Any) -> tuple[Path, ...]:
    """Return the masks of a row: data sets of anomalib keep one path or none, those of this package several."""
    if isinstance(masks, list | tuple):
        return tuple(map(Path, masks))
    return () if pd.isna(masks) or not masks else (Path(masks),)
