# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Memory and calibration of a trained MediCLIP with more support images; no weight is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib import TaskType
from anomalib.data import ImageBatch
from torch.utils.data import DataLoader

from anomalib_mediclip.data.datamodule import MAX_CACHED_IMAGES
from anomalib_mediclip.data.dataset import MedicalDataset, image_names
from anomalib_mediclip.data.samples import Sample, to_dataframe
from anomalib_mediclip.data.synthetic_validation import SyntheticValidationDataset
from anomalib_mediclip.models.components.pre_processing import transform_of
from anomalib_mediclip.models.components.support_methods import in_range
from anomalib_mediclip.models.mediclip.memory_bank import pooled_moments

ENCODED_AT_ONCE = 8
VALIDATED_AT_ONCE = 32

Features = list[list[torch.Tensor]]


class NormalSet:
    """Normal images with their features.

    Args:
        model (Any): MediCLIP with a memory bank, in evaluation mode.
        paths (Sequence[Path]): Images.
        names (Sequence[str]): Names by which bank and paintings know them.

    Attributes:
        names (list[str]): The names, in the order of the data set, which sorts its images.
        dataset (MedicalDataset): The images, resized.
        features (Features): Patch features, some images at a time.
    """

    def __init__(self, model: Any, paths: Sequence[Path], names: Sequence[str]) -> None:
        frame = to_dataframe([Sample(path) for path in paths], "train", TaskType.CLASSIFICATION)
        frame["image_name"] = list(names)
        self.dataset = MedicalDataset(frame, len(paths) <= MAX_CACHED_IMAGES, transform_of(model.pre_processor))
        self.names = list(self.dataset.samples["image_name"])
        with torch.no_grad():
            images = [in_range(self.dataset[index].image) for index in range(len(self.dataset))]
            batches = [torch.stack(images[start : start + ENCODED_AT_ONCE]) for start in self._starts()]
            self.features: Features = [model.model.vision_encoder(batch) for batch in batches]

    def _starts(self) -> range:
        return range(0, len(self.names), ENCODED_AT_ONCE)

    @torch.no_grad()
    def scores(self, model: Any, among_others: bool = False) -> dict[str, float]:
        """Return the shown scores of the images.

        Args:
            model (Any): Model.
            among_others (bool, optional): Whether each is compared with the other images of the bank only. Defaults to
                ``False``.

        Returns:
            dict[str, float]: Scores by name.
        """
        found: list[float] = []
        for start, features in zip(self._starts(), self.features, strict=True):
            names = self.names[start : start + ENCODED_AT_ONCE] if among_others else None
            predictions = model.post_processor(model.model.head(features, model.image_size, names))
            found += predictions.pred_score.tolist()
        return dict(zip(self.names, found, strict=True))

    @torch.no_grad()
    def known(self, model: Any) -> set[str]:
        """Tell which images are in the memory bank already.

        Args:
            model (Any): Model.

        Returns:
            set[str]: Their names.
        """
        bank = model.model.memory_bank
        held = torch.cat([bank.holds(features, model.image_size) for features in self.features]).tolist()
        return {name for name, is_held in zip(self.names, held, strict=True) if is_held}


def remember_more(model: Any, added: NormalSet) -> int:
    """Add images to the memory bank and to the moments of the learnt map.

    Args:
        model (Any): Model, changed in place.
        added (NormalSet): Images.

    Returns:
        int: Number of images that the bank held before.
    """
    network = model.model
    held = len(network.memory_bank.images)
    network.memory_bank.add(added.features, model.image_size, added.names, model.used_seed)
    moments = network.map_moments_of({}, added.features, model.image_size)
    network.map_moments.copy_(pooled_moments(network.map_moments, held, moments, len(added.names)))
    return held


def remember_all(model: Any, support: NormalSet) -> None:
    """Fill the memory bank anew, and compute the moments of the learnt map, from all support images.

    Args:
        model (Any): Model, changed in place.
        support (NormalSet): All support images.
    """
    network = model.model
    network.memory_bank.remember(support.features, model.image_size, support.names, model.used_seed)
    network.map_moments.copy_(network.map_moments_of({}, support.features, model.image_size))


@torch.no_grad()
def find_thresholds(model: Any, support: NormalSet, seed: int) -> None:
    """Find the thresholds of a model on support images and on anomalies painted on them, as a training does.

    Args:
        model (Any): Model whose bank holds the images; its post-processor is changed.
        support (NormalSet): Images.
        seed (int): Seed of the paintings, that of the data module.
    """
    validation = SyntheticValidationDataset(support.dataset, seed)
    names, processor = image_names(validation), model.post_processor
    for batch in DataLoader(validation, VALIDATED_AT_ONCE, collate_fn=ImageBatch.collate):
        images = in_range(batch.image)
        shown = [names[path] for path in batch.image_path]
        predictions = model.model.head(model.model.vision_encoder(images), model.image_size, shown)
        processor.update_thresholds(batch.update(**predictions._asdict()))
    processor.on_validation_epoch_end(None, model)


def pool_thresholds(processor: Any, before: dict[str, torch.Tensor], held: int, added: int, fixed: bool) -> None:
    """Average the thresholds of the added images with those of before, by the number of images.

    Both are in z-scores, which the support set has the mean 0 and the standard deviation 1 of with any bank.

    Args:
        processor (Any): Post-processor with the thresholds of the added images, changed in place.
        before (dict[str, torch.Tensor]): Its state of before.
        held (int): Number of images that those of before were found on.
        added (int): Number of added images.
        fixed (bool): Whether the image threshold of before stays as it is.
    """
    for name in ("_image_threshold", "_pixel_threshold"):
        buffer, old = getattr(processor, name), before[name]
        pooled = (held * old + added * buffer) / (held + added)
        buffer.copy_(old if fixed and name == "_image_threshold" else pooled.where(~old.isnan(), buffer))
