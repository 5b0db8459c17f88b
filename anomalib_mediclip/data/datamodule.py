# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Base of the data modules: k normal images to train on, a fixed test set, a synthetic validation set."""

import hashlib
import logging
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import TestSplitMode, ValSplitMode
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Transform

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.data.authors_lists import has_release, read_release
from anomalib_mediclip.data.checks import usable
from anomalib_mediclip.data.dataset import MedicalDataset
from anomalib_mediclip.data.duplicates import warn_of_duplicates
from anomalib_mediclip.data.samples import Sample, listed, require_files, to_dataframe
from anomalib_mediclip.data.support_set import SupportSampler, draw_support_set
from anomalib_mediclip.data.synthetic_validation import SyntheticValidationDataset
from anomalib_mediclip.host.datamodule import FixedSplitsDataModule
from anomalib_mediclip.io import content_of, describe_skipped, file_of, search
from anomalib_mediclip.seeds import used_seed

logger = logging.getLogger(__name__)

MAX_CACHED_IMAGES = 512  # 0.3 GB of images of 224 x 224 pixels
MAX_IMAGES_WITHOUT_WORKERS = 64
MAX_WORKERS = 4


class FewShotDataModule(FixedSplitsDataModule):
    """Base of the datamodules: k normal images to train on, a fixed test set, a synthetic validation set.

    A subclass says which images its folder holds; whatever has the authors' lists (``samples/train.json`` and
    ``samples/test.json``, see :mod:`anomalib_mediclip.data.authors_lists`) is read from those instead.

    Args:
        root (Path | str): Folder of the data set.
        k_shot (int | None): Number of normal images to train on, drawn from the training pool; None takes all.
            The paper has 4, 8, 16 and 32.
        seed (int | None): Seed of the draw, of the order of the images and of the synthetic validation set. None takes
            the global seed (``--seed_everything``), or 0 without one, when the sets are made.
        train_batch_size (int): Images in a training batch; may exceed ``k_shot``.
        eval_batch_size (int): Images in a validation, test or prediction batch.
        num_workers (int | None): Processes that read images. None takes none for training and validation, whose images
            stay in memory, and up to 4 for a test set of more than 64 images.
        train_augmentations (Transform | None): Augmentations of the training images.
        val_augmentations (Transform | None): Augmentations of the validation images, before anomalies are painted.
        test_augmentations (Transform | None): Augmentations of the test images.
        augmentations (Transform | None): Augmentations where no more specific ones are given.
        on_error (Literal["stop", "skip"]): What to do if an image of the support set or of the test set, or a mask,
            cannot be used. They are checked before the training. ``"skip"`` leaves them out and lists them; the test
            set is then decoded for that.

    Attributes:
        support_set (list[Path]): Images drawn for training, in the order of the pool; known after ``setup``.
        support_set_hash (str): SHA-256 over the bytes of these files one after the other, in hexadecimal.
    """

    expected_layout: ClassVar[str]
    seed: int | None

    def __init__(
        self,
        root: Path | str,
        k_shot: int | None = 16,
        seed: int | None = None,
        train_batch_size: int = 8,
        eval_batch_size: int = 32,
        num_workers: int | None = None,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        used_seed(seed)  # refuses a wrong one at once
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers or 0,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            test_split_mode=TestSplitMode.FROM_DIR,
            val_split_mode=ValSplitMode.FROM_DIR,  # make_splits sets val_data
            seed=seed,
        )
        self.root = Path(root)
        self.k_shot = k_shot
        self.support_set: list[Path] = []
        self.support_set_hash = ""
        self.on_error = on_error
        self._skipped = Counter[str]()
        self._pool_size = 0
        self._test_set_hash = ""
        self._chooses_workers = num_workers is None

    @abstractmethod
    def read_layout(self) -> tuple[list[Sample], list[Sample]]:
        """List the images of the data set.

        Returns:
            tuple[list[Sample], list[Sample]]: Training pool (normal images only) and test set, in natural order.
        """

    def setup(self, stage: str | None = None) -> None:
        """Make the three sets; when a training starts, write the names of the support set beside its results."""
        super().setup(stage)
        if stage in {TrainerFn.TESTING, TrainerFn.PREDICTING} and not self.can_test:
            verb = "test" if stage == TrainerFn.TESTING else "predict"
            msg = f"{self.name} has no anomalous test images, so there is nothing to {verb}: see {self.root}"
            raise ValueError(msg)
        if self.trainer is None or not self.trainer.is_global_zero:
            return
        if stage == TrainerFn.FITTING:
            self._write_support_set(Path(self.trainer.default_root_dir))
        if stage == TrainerFn.TESTING:
            model = getattr(self.trainer, "lightning_module", None)
            self._warn_of_unknown_lesions(getattr(model, "evaluator", None))

    def describe(self) -> dict[str, str | int]:
        """Describe the data, in plain data, for the records of a training and of its test.

        Returns:
            dict[str, str | int]: ``data_set``, ``k_shot``, ``seed``, ``pool_size``, ``support_set_hash``, and
            ``test_set_hash``, over names and sizes of the test images and their masks.
        """
        return {
            "data_set": self.name,
            "k_shot": len(self.support_set),
            "seed": used_seed(self.seed),
            "pool_size": self._pool_size,
            "support_set_hash": self.support_set_hash,
            "test_set_hash": self._test_set_hash,
        }

    def state_dict(self) -> dict[str, str]:
        """Return what a checkpoint keeps of the data: by what the support set is recognised."""
        return {"support_set_hash": self.support_set_hash}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Warn if a run is resumed with another support set than it was started with."""
        resumes = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if resumes and state_dict["support_set_hash"] != self.support_set_hash:
            logger.warning(
                "the run is resumed with another support set than it was started with: give the data.root, data.k_shot "
                "(now %s) and data.seed (now %d) of its support_set.txt",
                self.k_shot,
                self.seed,
            )

    def make_splits(self) -> None:
        """Draw the support set and make the three sets, once."""
        if self.support_set:
            return
        self.seed = used_seed(self.seed)
        pool, test = self.read_samples()
        skip = self.on_error == "skip"
        drawn = [pool[index] for index in draw_support_set(len(pool), self.k_shot, self.seed)]
        if not skip:
            require_files(path for sample in (*drawn, *test) for path in (sample.image, *sample.masks))
        support = usable(drawn, "images of the support set", skip, decode=True)
        test = usable(test if any(sample.is_abnormal for sample in test) else [], "test images", skip, decode=skip)
        if not support:
            msg = f"no image of the support set of {self.name} can be read"
            raise ValueError(msg)
        task = TaskType.SEGMENTATION if any(sample.masks for sample in test) else TaskType.CLASSIFICATION
        self.train_data = MedicalDataset(to_dataframe(support, "train", task), cache=len(support) <= MAX_CACHED_IMAGES)
        self.val_data = SyntheticValidationDataset(self.train_data, seed=self.seed)
        self.test_data = MedicalDataset(to_dataframe(test, "test", task))
        self._pool_size = len(pool)
        self._test_set_hash = self._hash_names(test)
        self._describe_content(test)
        self._describe_support_set([sample.image for sample in support])
        warn_of_duplicates(self.support_set, [sample.image for sample in test])

    @property
    def can_test(self) -> bool:
        """Whether there are anomalous test images; known after ``setup``."""
        return len(self.test_data) > 0

    def find_images(self, folder: Path) -> list[Path]:
        """List the images of a folder, and count the other files.

        Args:
            folder (Path): Folder to search.

        Returns:
            list[Path]: Images in natural order; never empty.

        Raises:
            FileNotFoundError: If the folder does not exist.
            ValueError: If it holds no image.
        """
        found = search(folder)
        self._skipped += found.skipped
        return found.images

    def _describe_content(self, test: Sequence[Sample]) -> None:
        """Log what was found, and what was not used."""
        abnormal = [sample for sample in test if sample.is_abnormal]
        masked = sum(bool(sample.masks) for sample in abnormal)
        logger.info(
            "%s: support pool %d; test %d normal, %d anomalous, %d with masks%s",
            self.name,
            self._pool_size,
            len(test) - len(abnormal),
            len(abnormal),
            masked,
            f"; skipped {describe_skipped(self._skipped)}" if self._skipped else "",
        )
        if not test:
            logger.warning(
                "%s has no anomalous test images: the model is trained, its thresholds come from synthetic anomalies, "
                "and nothing is tested.",
                self.name,
            )

    def _hash_names(self, samples: Sequence[Sample]) -> str:
        """Hash names and sizes of images and masks."""
        digest = hashlib.sha256()
        for path in (path for sample in samples for path in (sample.image, *sample.masks)):
            size = file_of(path)[0].stat().st_size
            digest.update(f"{Path(os.path.relpath(path, self.root)).as_posix()}\0{size}\0".encode())
        return digest.hexdigest()

    def read_samples(self) -> tuple[list[Sample], list[Sample]]:
        """List the images, from the authors' lists if they are there.

        Returns:
            tuple[list[Sample], list[Sample]]: Training pool and test set.

        Raises:
            FileNotFoundError: If the folder or a part of it is missing.
        """
        if not self.root.is_dir():
            msg = (
                f"no folder {self.root} (absolute: {self.root.resolve()}): set data.root to the folder of {self.name}, "
                f"which holds {self.expected_layout}; datasets/README.md says where to get it"
            )
            raise FileNotFoundError(msg)
        return read_release(self.root) if has_release(self.root) else self.read_layout()

    def _find_layout(self, names: Sequence[str], nested: str) -> Path:
        """Return the folder, root or root/nested, that holds all the names."""
        for folder in (self.root, self.root / nested):
            if all((folder / name).exists() for name in names):
                return folder
        found = sorted(path.name for path in self.root.iterdir())
        content = listed(found) or "an empty folder"
        msg = f"{self.root} is not {self.name}: expected {self.expected_layout}, found {content}"
        raise FileNotFoundError(msg)

    def _describe_support_set(self, images: list[Path]) -> None:
        """Publish and log the drawn images."""
        digest = hashlib.sha256()
        for image in images:
            digest.update(content_of(image))
        self.support_set, self.support_set_hash = images, digest.hexdigest()
        drawn = f"{len(images)} of {self._pool_size} images: {', '.join(image.name for image in images)}"
        logger.info("%s, seed %d: trains on %s", self.name, self.seed, drawn)

    def _warn_of_unknown_lesions(self, evaluator: object) -> None:
        """Say how many lesions an evaluator of somebody else takes for normal tissue."""
        if evaluator is None or hasattr(evaluator, "LEAVES_OUT_UNKNOWN_LESIONS"):
            return
        samples = self.test_data.samples
        unknown = int(((samples["label_index"] == 1) & ~samples["mask_path"].map(bool)).sum())
        if unknown and self.test_data.task == TaskType.SEGMENTATION:
            logger.warning(
                "%d anomalous test images of %s have no mask: nobody knows which of their pixels are anomalous. %s "
                "takes them all for normal, and its pixel metrics are wrong. anomalib_mediclip.evaluation."
                "MedicalEvaluator leaves these images out of pixel metrics, and takes further metrics.",
                unknown,
                self.name,
                type(evaluator).__name__,
            )

    def _write_support_set(self, folder: Path) -> None:
        """Write ``support_set.txt``: a header, then one path per line, relative to the root."""
        header = (
            f"# data set: {self.name}\n# k: {len(self.support_set)}\n# seed: {self.seed}\n"
            f"# pool size: {self._pool_size}\n# SHA-256 over the images' bytes: {self.support_set_hash}\n"
        )
        paths = [Path(os.path.relpath(image, self.root)).as_posix() for image in self.support_set]
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "support_set.txt", header + "\n".join(paths) + "\n")

    def train_dataloader(self) -> DataLoader:
        """Return the loader of the support set, in an order that depends on the seed and the epoch only."""
        sampler = SupportSampler(len(self.train_data), used_seed(self.seed))
        if self.trainer is not None:  # workers read ahead before Lightning tells the sampler where a resumed run begins
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(progress.processed)
        return self._make_loader(self.train_data, self.train_batch_size, self.num_workers, sampler)

    def val_dataloader(self) -> DataLoader:
        """Return the loader of the synthetic validation set."""
        return self._make_loader(self.val_data, self.eval_batch_size, self.num_workers)

    def test_dataloader(self) -> DataLoader:
        """Return the loader of the test set, which also serves for prediction."""
        workers = self.num_workers
        if self._chooses_workers and len(self.test_data) > MAX_IMAGES_WITHOUT_WORKERS:
            workers = min(MAX_WORKERS, os.cpu_count() or 1)
        return self._make_loader(self.test_data, self.eval_batch_size, workers)

    def _make_loader(
        self,
        dataset: AnomalibDataset,
        batch_size: int,
        num_workers: int,
        sampler: SupportSampler | None = None,
    ) -> DataLoader:
        """Return a loader; in the order of the data set unless there is a sampler."""
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0 and sampler is not None,
            collate_fn=self.external_collate_fn or dataset.collate_fn,
        )
