# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Results of volumes that medical viewers open: anomaly map and predicted mask on the voxels of the source.

For NIfTI they are NIfTI files, for DICOM a Parametric Map and a Segmentation. See ``docs/medical-formats.md``.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from anomalib.data import ImageBatch, ImageItem
from lightning import Callback, LightningModule, Trainer
from pydicom.dataset import Dataset

from anomalib_mediclip.display import slice_plane
from anomalib_mediclip.io.dicom_results import (
    Algorithm,
    NotWrittenError,
    check_highdicom,
    read_sources,
    resized,
    write_parametric_map,
    write_segmentation,
)
from anomalib_mediclip.io.nifti import Grid, part_of_slices, read_grid, to_slices
from anomalib_mediclip.io.nifti_results import write_like
from anomalib_mediclip.io.volumes import file_of
from anomalib_mediclip.memory import free_memory, trim_memory
from anomalib_mediclip.prediction.folder import (
    PredictionDataset,
    is_unreadable,
    keeps_whole_images,
    predicted_dataset,
)
from anomalib_mediclip.prediction.pictures import draw_prediction, root_of_names
from anomalib_mediclip.prediction.run_report import checkpoint_hash
from anomalib_mediclip.prediction.table import append_rows, in_digits, label_of, no_formula
from anomalib_mediclip.prediction.volumes import Volume, volumes_of

logger = logging.getLogger(__name__)

FOLDER = "volumes"
SLAB = 2**23  # voxels of a NIfTI result that are in memory
COLUMNS = ("volume", "slice", "score", "label", "file")
Map = npt.NDArray[np.float32]


@dataclass
class Collected:
    """What has been predicted of a volume.

    Args:
        count (int): Number of its slices that are to be predicted.

    Attributes:
        maps (np.ndarray | None): Maps ``(slices, h, w)``, float32, in the size that the model computed, in the order in
            which they came. They are one array, whose memory the system gets back as a whole.
        order (list[int]): Slice of each map.
        rows (dict[int, tuple[str, ...]]): Rows of the table of slices.
        highest (ImageItem | None): Slice with the highest score, if there are scores.
        highest_score (float): Its score.
        has_masks (bool): Whether the post-processor predicts masks.
    """

    count: int
    maps: Map | None = None
    order: list[int] = field(default_factory=list)
    rows: dict[int, tuple[str, ...]] = field(default_factory=dict)
    highest: ImageItem | None = None
    highest_score: float = -math.inf
    has_masks: bool = False

    def add(self, place: int, item: ImageItem, volume: Volume) -> None:
        """Keep what is needed of a predicted slice."""
        readable = not is_unreadable(item)
        score = item.pred_score if readable else None
        name, file = no_formula(volume.name.as_posix()), no_formula(str(item.image_path))
        self.rows[place] = (name, str(place), in_digits(score), label_of(item), file)
        if readable and item.anomaly_map is not None:
            self._keep(place, item.anomaly_map.squeeze().float().cpu().numpy())
            self.has_masks = item.pred_mask is not None
        if score is not None and float(score) > self.highest_score:
            self.highest, self.highest_score = item, float(score)

    def _keep(self, place: int, anomaly_map: Map) -> None:
        """Keep a map."""
        if self.maps is None:
            self.maps = np.empty((self.count, *anomaly_map.shape), np.float32)
        self.maps[len(self.order)] = anomaly_map
        self.order.append(place)

    def by_slice(self) -> dict[int, Map]:
        """Return the map ``(h, w)`` of each slice that has one, in the order of the slices."""
        maps: Iterable[Map] = () if self.maps is None else self.maps
        return dict(sorted(zip(self.order, maps, strict=False), key=itemgetter(0)))


class VolumeResults(Callback):
    """Writes the results of each volume into ``volumes/`` in the folder of the run, when its last slice is predicted.

    Slices come in order, so that one volume at a time is in memory, in the size that the model computes on; only series
    whose files alternate in a folder are in memory together.
    """

    def __init__(self) -> None:
        self._volumes: dict[str, Volume] = {}
        self._collected: dict[Path, Collected] = {}
        self._not_written: Counter[str] = Counter()
        self._written = 0
        self._writes_dicom = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the volumes among the images to predict."""
        self._volumes, self._collected, self._not_written, self._written = {}, {}, Counter(), 0
        self._writes_dicom = True
        dataset = predicted_dataset(trainer, 0)
        if not isinstance(dataset, PredictionDataset):
            return
        volumes = volumes_of(dataset.paths, root_of_names(trainer, 0))
        obstacle = _obstacle(trainer, pl_module)
        if volumes and obstacle:
            logger.warning("No results of volumes are written: %s", obstacle)
            return
        self._volumes = volumes
        if any(volume.kind == "dicom" for volume in volumes.values()):
            self._begin_dicom()

    def _begin_dicom(self) -> None:
        """Find out at the start whether DICOM results can be written."""
        try:
            check_highdicom()
        except NotWrittenError as error:
            self._writes_dicom = False
            logger.warning("%s. Tables and pictures are written.", error)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the slices of a batch, and write the volumes that they complete."""
        del outputs, batch_idx, dataloader_idx
        if not self._volumes:
            return
        for item in batch:
            path = str(item.image_path)
            volume = self._volumes.get(path)
            if volume is None:
                continue
            collected = self._collected.setdefault(volume.name, Collected(len(volume.slices)))
            collected.add(volume.slices[path], item, volume)
            if len(collected.rows) == len(volume.slices):
                self._write(trainer, pl_module, volume)
        trim_memory()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is left of a prediction that was cut short, and say what was written and what was not."""
        for volume in {volume.name: volume for volume in self._volumes.values()}.values():
            if volume.name in self._collected:
                self._write(trainer, pl_module, volume)
        for reason, count in self._not_written.items():
            logger.info("Not written for %d volumes or DICOM images: %s.", count, reason)
        if self._written:
            logger.info("Wrote the results of %d volumes or DICOM images to %s", self._written, _folder(trainer))

    def _write(self, trainer: Trainer, pl_module: LightningModule, volume: Volume) -> None:
        """Write all results of a volume, and forget it."""
        collected = self._collected.pop(volume.name)
        if len(volume.slices) > 1:
            _append_rows(_folder(trainer), [collected.rows[place] for place in sorted(collected.rows)])
        if collected.maps is None:
            return
        free_memory()
        folder = _folder(trainer) / volume.name
        cut: Any = getattr(pl_module.post_processor, "normalized_pixel_threshold", None)
        threshold = float(cut) if collected.has_masks and cut is not None else None
        if volume.kind == "nifti":
            _write_nifti(folder, volume, collected.by_slice(), threshold)
        elif self._writes_dicom:
            algorithm = Algorithm(type(pl_module).__name__, checkpoint_hash(trainer) or "no checkpoint")
            self._not_written.update(_write_dicom(folder, volume, collected, threshold, algorithm))
        if len(volume.slices) > 1 and collected.highest is not None:
            folder.mkdir(parents=True, exist_ok=True)
            draw_prediction(collected.highest).save(folder / "highest_slice.png")
        self._written += folder.is_dir()


def _obstacle(trainer: Trainer, pl_module: LightningModule) -> str:
    """Say why volumes cannot be put together; nothing if they can."""
    if trainer.world_size > 1:
        return "their slices are predicted by several processes. Give --trainer.devices 1."
    if not keeps_whole_images(getattr(pl_module.pre_processor, "transform", None)):
        return "the pre-processor does more than resize, so that it is not known which part of a slice a map covers."
    return ""


def _folder(trainer: Trainer) -> Path:
    """Return the folder of the results of volumes."""
    return Path(trainer.default_root_dir) / FOLDER


def _append_rows(folder: Path, rows: list[tuple[str, ...]]) -> None:
    """Append rows to the table of slices, which is begun if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "slices.csv"
    append_rows(table, rows if table.exists() else [COLUMNS, *rows])


def _write_nifti(folder: Path, volume: Volume, maps: dict[int, Map], threshold: float | None) -> None:
    """Write map and mask on the voxels of a NIfTI file; slices that were not predicted are NaN in the map."""
    source = file_of(next(iter(volume.slices)))[0]
    grid = read_grid(source)
    write_like(source, _slabs(grid, maps), np.float32, folder / "anomaly_map.nii.gz")
    if threshold is not None:
        cut = (slab > threshold for slab in _slabs(grid, maps))
        write_like(source, cut, np.uint8, folder / "pred_mask.nii.gz")


def _slabs(grid: Grid, maps: dict[int, Map]) -> Iterator[Map]:
    """Yield the maps on the voxels of a volume, in slabs along its third axis: all of it would be large."""
    depth, plane = grid.shape[2], slice_plane()
    count, *size = grid.shape_in(plane)
    thickness = max(1, SLAB // math.prod(grid.shape[:2]))
    for start in range(0, depth, thickness):
        stop = min(start + thickness, depth)
        voxels = np.full((*grid.shape[:2], stop - start), np.nan, np.float32)
        part = part_of_slices(grid, plane, start, stop)
        # a view: what is written there is in the voxels
        for shown, place in zip(to_slices(voxels, grid.affine, plane), range(count)[part[0]], strict=True):
            if place in maps:
                shown[:] = resized(maps[place], *size)[part[1:]]
        yield voxels


def _write_dicom(
    folder: Path, volume: Volume, collected: Collected, threshold: float | None, algorithm: Algorithm
) -> list[str]:
    """Write map and mask of a DICOM series or file, and return why some were not written; the maps are used up."""
    try:
        sources, maps = _matched(volume, collected.by_slice())
        collected.maps = None
    except NotWrittenError as error:
        return [str(error)]
    reasons = []

    def attempt(name: str, write: Callable[[], None]) -> None:
        try:
            write()
        except NotWrittenError as error:
            reasons.append(f"{name}: {error}")

    attempt("Parametric Map", lambda: write_parametric_map(folder / "anomaly_map.dcm", sources, maps, algorithm))
    if threshold is not None:
        rows, columns = int(sources[0].Rows), int(sources[0].Columns)
        mask = _cut(maps, rows, columns, threshold)
        free_memory()
        attempt("Segmentation", lambda: write_segmentation(folder / "pred_mask.dcm", sources, mask, algorithm))
    return reasons


def _cut(maps: list[Map], rows: int, columns: int, threshold: float) -> npt.NDArray[np.uint8]:
    """Return the mask ``(slices, rows, columns)``, and delete the maps, whose place in memory it takes."""
    bits = np.stack([np.packbits(resized(one, rows, columns) > threshold, axis=1) for one in maps])
    maps.clear()
    return np.unpackbits(bits, axis=2, count=columns)


def _matched(volume: Volume, maps: dict[int, Map]) -> tuple[list[Dataset], list[Map]]:
    """Return the headers of the sources, and the map of each of their frames; NaN for a frame that has none."""
    paths = {place: file_of(path) for path, place in volume.slices.items()}
    file, frame = next(iter(paths.values()))
    if frame is None:  # a file for every slice
        return read_sources([paths[place][0] for place in maps]), list(maps.values())
    sources = read_sources([file])
    unknown = np.full_like(next(iter(maps.values())), np.nan)
    return sources, [maps.get(place, unknown) for place in range(int(sources[0].NumberOfFrames))]
