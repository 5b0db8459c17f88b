# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint or an exported file as a stream from images to scores."""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from anomalib.data import ImageItem

from anomalib_mediclip.export import ExportedModel
from anomalib_mediclip.export.artifact import model_class
from anomalib_mediclip.host.checkpoint_io import read_checkpoint
from anomalib_mediclip.io import read_image
from anomalib_mediclip.io.array import check_images
from anomalib_mediclip.models.components.checkpoint import trained_model
from anomalib_mediclip.prediction.folder import BATCH_SIZE
from anomalib_mediclip.prediction.table import in_digits

EXPORTS = (".xml", ".onnx")


class Scored(NamedTuple):
    """What is predicted for an image.

    Attributes:
        score (str): Calibrated score in digits.
        is_anomalous (bool | None): Whether it is above the threshold; None if the model has none.
    """

    score: str
    is_anomalous: bool | None


class Predictor(Protocol):
    """A model that predicts a stream of images.

    Attributes:
        threshold (str): Where scores are cut, in digits; empty if the file does not say.
    """

    threshold: str

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the model takes of an image ``(3, H, W)``, float32 in [0, 1]; called in threads that read."""

    def scores(self, images: Iterable[torch.Tensor]) -> Iterator[Scored]:
        """Yield what is predicted for prepared images, in their order."""

    def predict(self, path: Path) -> ImageItem:
        """Return what is predicted for a file, its map included."""


class CheckpointPredictor:
    """A checkpoint of a model of this plugin.

    Args:
        path (Path): Checkpoint.
        threads (int): CPU cores.
        device (str): ``cpu`` or ``cuda``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint of such a model.
    """

    def __init__(self, path: Path, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self.device = device
        self.model: Any = _load(path).to(device).eval()
        threshold = getattr(self.model.post_processor, "normalized_image_threshold", None)
        self.threshold = in_digits(threshold)

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image at the size of the model."""
        transform = self.model.pre_processor.transform if self.model.pre_processor else None
        prepared: torch.Tensor = transform(image) if transform else image
        return prepared

    @torch.inference_mode()
    def scores(self, images: Iterable[torch.Tensor]) -> Iterator[Scored]:
        """Predict in batches of images of one size."""
        for _, alike in groupby(images, key=lambda image: image.shape):
            while batch := list(islice(alike, BATCH_SIZE)):
                predictions = self._predict(torch.stack(batch))
                labels = predictions.pred_label
                for index, score in enumerate(predictions.pred_score.flatten()):
                    yield Scored(in_digits(score), None if labels is None else bool(labels.flatten()[index]))

    def _predict(self, images: torch.Tensor) -> Any:
        """Return what the model, and the post-processor after it, make of prepared images."""
        predictions = self.model.model(images.to(self.device))
        return self.model.post_processor(predictions) if self.model.post_processor else predictions

    @torch.inference_mode()
    def predict(self, path: Path) -> ImageItem:
        """Predict one file."""
        predictions = self._predict(self.prepare(read_image(path))[None])
        found = {name: getattr(predictions, name) for name in ("anomaly_map", "pred_mask", "pred_score", "pred_label")}
        return _item(path, {name: value[0].cpu() for name, value in found.items() if value is not None})


class ExportPredictor:
    """An OpenVINO or ONNX file, which resizes images itself.

    Args:
        path (Path): File.
        threads (int): CPU cores.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If the package that runs it is not installed.
        ValueError: If the file takes images of one size only.
    """

    threshold = ""

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(1)  # torch only reads
        self.model = ExportedModel(path, threads=threads)
        try:
            for height in (64, 96):
                self.model(np.zeros((1, 3, height, 80), np.float32))
        except Exception as error:  # each runtime has its own
            msg = f"{path} takes images of one size only. Export it again without --input_size."
            raise ValueError(msg) from error

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image, or raise what is wrong with it: in the stream that would end the others."""
        check_images(image.numpy()[None])
        return image

    def scores(self, images: Iterable[torch.Tensor]) -> Iterator[Scored]:
        """Predict images one by one, several at once."""
        for found in self.model.stream(image.numpy()[None] for image in images):
            labels = found.get("pred_label")
            score = in_digits(torch.from_numpy(np.asarray(found["pred_score"])).flatten()[0])
            yield Scored(score, None if labels is None else bool(np.asarray(labels).flatten()[0]))

    def predict(self, path: Path) -> ImageItem:
        """Predict one file."""
        found = self.model(read_image(path).numpy()[None])
        return _item(path, {name: torch.from_numpy(np.asarray(value))[0] for name, value in found.items()})


def _item(path: Path, found: dict[str, torch.Tensor]) -> ImageItem:
    """Return an item for drawing."""
    shapes: dict[str, tuple[int, ...]] = {name: value.shape[-2:] for name, value in found.items() if "_ma" in name}
    fields: dict[str, Any] = {name: value.reshape(shapes.get(name, ())) for name, value in found.items()}
    return ImageItem(image=torch.zeros(3, 1, 1), image_path=str(path), **fields)


def _load(path: Path) -> Any:
    """Load a checkpoint into a model of the class that it names."""
    name = trained_model(read_checkpoint(path))
    if name is None:
        msg = (
            f"{path} names no model: it was not written by anomalib-mediclip. Export it with "
            "`anomalib export --export_type openvino`, and give the model.xml."
        )
        raise ValueError(msg)
    return model_class(name, path).load_from_checkpoint(path)


def open_predictor(path: Path, threads: int, device: str) -> Predictor:
    """Open a model.

    Args:
        path (Path): Checkpoint, ``model.xml`` or ``model.onnx``.
        threads (int): CPU cores.
        device (str): ``cpu`` or ``cuda``; exported files run on the CPU.

    Returns:
        Predictor: Model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file.
    """
    if path.suffix in EXPORTS:
        return ExportPredictor(path, threads)
    return CheckpointPredictor(path, threads, device)
