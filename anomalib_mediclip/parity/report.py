# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The parity report: exports a checkpoint, runs every format in turn, writes Markdown and CSV."""

import gc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from anomalib.engine import Engine
from tqdm import tqdm

import anomalib_mediclip.models  # noqa: F401  # the classes that checkpoints name
from anomalib_mediclip.data import FewShotDataModule
from anomalib_mediclip.export.artifact import model_class
from anomalib_mediclip.models.components.checkpoint import trained_model
from anomalib_mediclip.models.components.few_shot_module import FewShotModule
from anomalib_mediclip.models.components.frozen_encoder import FrozenEncoderModule
from anomalib_mediclip.models.components.pre_processing import transform_of
from anomalib_mediclip.parity.comparison import (
    BATCH_SIZE,
    Predictions,
    compare,
    predict_all,
    seconds_per_call,
)
from anomalib_mediclip.parity.formats import (
    CALIBRATED,
    FORMATS,
    Format,
    FormatName,
    precisions,
    predict_with,
    size_on_disk,
)
from anomalib_mediclip.parity.images import ComparedImages, find_compared_images
from anomalib_mediclip.parity.tables import write_tables

ALL: tuple[FormatName, ...] = tuple(name for name in FORMATS if name != "openvino_int8_acq")


@dataclass
class Row:
    """A format of the report, and what has been measured of it.

    Args:
        format (Format): File and precision.
    """

    format: Format
    figures: dict[str, float] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)
    error: str = ""

    def columns(self) -> dict[str, Any]:
        """Return what the tables show of it."""
        named = {"format": self.format.name, "precision": self.format.precision, **self.figures, "error": self.error}
        if self.error or not self.batches:
            return named
        timed = statistics.median(self.latencies), statistics.median(self.batches)
        return {**named, "latency_ms": 1000 * timed[0], "throughput": BATCH_SIZE / timed[1]}


def write_parity_report(
    ckpt_path: Path,
    data: FewShotDataModule | None = None,
    images: Path | None = None,
    formats: Sequence[FormatName] = ALL,
    number: int | None = None,
    rounds: int = 5,
    output: Path = Path("results/parity"),
) -> tuple[Path, list[str]]:
    """Export a checkpoint in every format and compare what they predict with the checkpoint itself.

    All formats are given the same images twice: resized beforehand to the model's input size, from which come all
    differences but one, and as they are, which shows what the resizing inside the exported graph adds. They are run
    one after the other, never two in memory at once, and timed in several rounds, so that a busy machine slows all of
    them down alike. A format that fails is a row with its error.

    Args:
        ckpt_path (Path): Checkpoint of a model of this plugin.
        data (FewShotDataModule | None): Data module. INT8_PTQ is calibrated on its support set and the anomalies
            painted there, and its test images are compared unless ``images`` is given.
        images (Path | None): Folder of images to compare on. Sub-folders ``normal`` and ``abnormal``, if it has
            both, are their labels; without labels there is no AUROC.
        formats (Sequence[FormatName]): Formats.
        number (int | None): Compare on so many images only, evenly spaced. The maps of all of them are kept in memory.
        rounds (int): How often every format is loaded and timed.
        output (Path): Folder to write ``parity.md``, ``parity.csv`` and the exported files to.

    Returns:
        tuple[Path, list[str]]: ``parity.md``, and the formats that failed.

    Raises:
        FileNotFoundError: If the checkpoint or a folder does not exist.
        ValueError: If an argument or the checkpoint is of no use.
    """
    _check(formats, data, rounds)
    compared = find_compared_images(data, images).thinned(number)
    model = load_model(ckpt_path)
    has_encoder = isinstance(model, FrozenEncoderModule)
    rows = [Row(Format(name, precision)) for name in formats for precision in precisions(name, has_encoder)]
    with tqdm(total=len(formats) + 1 + rounds * len(rows), desc="exporting") as progress:
        title = _title(model, ckpt_path, compared)
        image_size = model.image_size
        paths = _export(model, data, rows, output / "exports", progress)
        progress.set_description("checkpoint")
        reference = predict_all(predict_with(_as_trained(model)), compared, image_size)
        progress.update()
        del model
        for _ in range(rounds):
            for row in rows:
                progress.set_description(str(row.format))
                _measure(row, paths.get(row.format.name), reference, compared, image_size)
                page = write_tables([row.columns() for row in rows], title, output)  # a killed run leaves its rows
                progress.update()
    return page, [str(row.format) for row in rows if row.error]


def load_model(ckpt_path: Path) -> FewShotModule:
    """Load the model of a checkpoint, whichever of the plugin's it is.

    Args:
        ckpt_path (Path): Checkpoint.

    Returns:
        FewShotModule: Model in evaluation mode, with the hyper-parameters of its training.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a checkpoint of this plugin.
    """
    if not ckpt_path.is_file():
        msg = f"There is no checkpoint {ckpt_path} (absolute: {ckpt_path.resolve()}); check --ckpt_path."
        raise FileNotFoundError(msg)
    try:
        name = trained_model(torch.load(ckpt_path, map_location="cpu", weights_only=True))
        loaded: Any = model_class(str(name), ckpt_path)
    except Exception as error:
        msg = f"{ckpt_path} is not a checkpoint of a model of anomalib-mediclip ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    return loaded.load_from_checkpoint(ckpt_path, map_location="cpu").eval()


def _check(formats: Sequence[FormatName], data: FewShotDataModule | None, rounds: int) -> None:
    """Refuse what cannot be run, before anything takes time."""
    if rounds < 1 or not formats:
        msg = f"rounds={rounds}, formats={list(formats)}: there must be at least one of each."
        raise ValueError(msg)
    calibrated = [name for name in formats if name in CALIBRATED]
    if calibrated and data is None:
        msg = f"{calibrated[0]} is calibrated on a support set: give --data, or leave it out of --formats."
        raise ValueError(msg)


def _title(model: FewShotModule, ckpt_path: Path, compared: ComparedImages) -> str:
    """Say what was measured."""
    height, width = model.image_size
    count = f"{len(compared)} images"
    if compared.labels is not None:
        count += f" ({int((~compared.labels).sum())} normal, {int(compared.labels.sum())} anomalous)"
    return f"{ckpt_path.name}: {model.title}, {height} x {width}; {count}"


def _as_trained(model: Any) -> Any:
    """Return the checkpoint's prediction with the pre-processing of training, which exports replace by their own."""
    transform = transform_of(model.pre_processor) or (lambda images: images)
    post_process = model.post_processor or (lambda batch: batch)
    return lambda images: post_process(model.model(transform(images)))


def _export(
    model: Any, data: FewShotDataModule | None, rows: list[Row], folder: Path, progress: tqdm
) -> dict[FormatName, Path]:
    """Export every format through anomalib's engine, and note sizes and errors in the rows."""
    engine = Engine(default_root_dir=folder, logger=False, accelerator="cpu", enable_progress_bar=False)
    paths: dict[FormatName, Path] = {}
    for name in dict.fromkeys(row.format.name for row in rows):
        progress.set_description(f"exporting {name}")
        kind, compression = FORMATS[name]
        noted = [row for row in rows if row.format.name == name]
        try:
            datamodule: Any = data if name in CALIBRATED else None
            path: Any = engine.export(model, kind, folder / name, compression_type=compression, datamodule=datamodule)
            paths[name] = path
            for row in noted:
                row.figures["size_mb"] = size_on_disk(path)
        except Exception as error:  # whatever an exporter raises is a row of the report
            for row in noted:
                row.error = _reason(error)
        progress.update()
    return paths


def _measure(
    row: Row, path: Path | None, reference: Predictions, compared: ComparedImages, image_size: tuple[int, int]
) -> None:
    """Load a format, compare it in the first round, time it, and forget it."""
    if row.error or path is None:
        return
    try:
        predict = row.format.open(path)
        if not row.latencies:
            row.figures |= compare(reference, predict_all(predict, compared, image_size), compared.labels)
        batch = torch.rand(BATCH_SIZE, 3, *image_size, generator=torch.Generator().manual_seed(0)).numpy()
        row.latencies.append(seconds_per_call(predict, batch[:1]))
        row.batches.append(seconds_per_call(predict, batch))
        del predict
    except Exception as error:  # whatever a runtime raises is a row of the report
        row.error = _reason(error)
    gc.collect()  # Lightning's modules are cycles


def _reason(error: Exception) -> str:
    """Return an error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
