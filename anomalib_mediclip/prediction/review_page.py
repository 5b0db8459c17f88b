# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Page to review the predictions of a run: ``index.html`` beside its table, which a browser opens from disk.

See ``docs/review.md``. The page asks for nothing but the files beside it, and its policy lets no other script run.
"""

import base64
import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator
from itertools import chain, compress
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from anomalib.data import ImageBatch, ImageItem
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from lightning import Callback, LightningModule, Trainer
from markupsafe import Markup

from anomalib_mediclip.atomic import written_beside
from anomalib_mediclip.drawing import PALETTE, colour_scale
from anomalib_mediclip.evaluation.selection import not_repeated
from anomalib_mediclip.io import hash_of_file, natural_key
from anomalib_mediclip.prediction.folder import is_unreadable
from anomalib_mediclip.prediction.review_pictures import write_layers
from anomalib_mediclip.prediction.table import (
    as_written,
    gets_table,
    in_digits,
    is_shown,
    label_of,
    no_formula,
    reason_of,
    table_of,
)
from anomalib_mediclip.prediction.threads import in_threads

logger = logging.getLogger(__name__)

PAGE = "index.html"
FOLDER = "review"  # of the pictures of the page
ROWS = "rows.jsonl"  # what a process has to say of its images, until the page is written
TEMPLATES = Path(__file__).parent / "review_templates"
SCRIPTS = ("csv.js", "images.js", "figures.js", "grid.js", "view.js", "page.js")
PALETTE_STEPS = 33  # of the filter that colours maps
NOT_IN_HTML = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


class ReviewPage(Callback):
    """Writes the page of a prediction or test, and its pictures, where the run has pictures and a table.

    Pictures and rows are written batch by batch. It comes before the table among the callbacks: the table may end the
    run with an error when it has been written.
    """

    def __init__(self) -> None:
        self._is_written = False
        self._count = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, unless pictures are switched off or the folder holds the table of another run."""
        del pl_module
        self._count = 0
        self._is_written = gets_table(trainer)
        if self._is_written:
            folder = _part(trainer, trainer.global_rank)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ROWS).write_text("", encoding="utf-8")
        elif is_shown(trainer) and trainer.testing:
            logger.warning(
                "%s holds the predictions of another run. This test writes neither table nor page. Give another "
                "folder, or move the file away.",
                table_of(trainer),
            )

    on_test_start = on_predict_start

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write pictures and rows of a batch."""
        del pl_module, outputs, batch_idx, dataloader_idx
        if self._is_written:
            self._write(trainer, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write pictures and rows of a tested batch."""
        del pl_module, outputs
        if self._is_written:
            chosen = not_repeated(trainer.test_dataloaders, batch, batch_idx, dataloader_idx).tolist()
            self._write(trainer, compress(batch, chosen))

    def _write(self, trainer: Trainer, items: Iterable[ImageItem]) -> None:
        """Write pictures and rows of images."""
        folder = _part(trainer, trainer.global_rank)
        named = [(item, f"{self._count + index:06d}") for index, item in enumerate(items)]
        self._count += len(named)
        rows = in_threads(lambda pair: _row(pair[0], folder / pair[1]), named)
        lines = [json.dumps(row).translate(NOT_IN_HTML) + "\n" for row in rows]
        with (folder / ROWS).open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page, with the rows of all processes."""
        if not self._is_written:
            return
        trainer.strategy.barrier(PAGE)
        if not trainer.is_global_zero:
            return
        parts = [_part(trainer, rank) / ROWS for rank in range(trainer.world_size)]
        page = Path(trainer.default_root_dir) / PAGE
        write_page(page, type(pl_module).__name__, threshold_of(pl_module), table_of(trainer), parts)
        for part in parts:
            part.unlink()
        logger.info("Open %s in a browser to review the predictions.", page)

    on_test_end = on_predict_end


def write_page(page: Path, model: str, threshold: float, table: Path, parts: Iterable[Path]) -> None:
    """Write the page.

    Args:
        page (Path): File to write.
        model (str): Name of the model.
        threshold (float): Threshold of images in the units of the shown scores.
        table (Path): Table of the predictions, by whose SHA-256 the page recognises its reviews.
        parts (Iterable[Path]): Files of a JSON array for each image, one a line.
    """
    style = f":root {{ --palette: {colour_scale(17)}; }}\n" + (TEMPLATES / "review.css").read_text(encoding="utf-8")
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    content = {
        "model": model,
        "facts": Markup(_in_html({"run": hash_of_file(table), "threshold": threshold})),  # noqa: S704
        "images": (Markup(line) for line in _lines(parts)),  # noqa: S704
        "style": Markup(style),  # noqa: S704
        "style_hash": _hash(style),
        "script": Markup(script),  # noqa: S704
        "script_hash": _hash(script),
        "channels": _palette_by_channel(),
    }
    with written_beside(page) as unfinished:
        _environment().get_template("review.html.jinja").stream(content).dump(str(unfinished), encoding="utf-8")


def threshold_of(model: LightningModule) -> float:
    """Return the threshold of images that a model cuts its shown scores at; 0.5 where it has none."""
    threshold = float(getattr(model.post_processor, "normalized_image_threshold", math.nan))
    return threshold if math.isfinite(threshold) else 0.5


def _part(trainer: Trainer, rank: int) -> Path:
    """Return the folder of the pictures of a process."""
    return Path(trainer.default_root_dir) / FOLDER / str(rank)


def _row(item: ImageItem, stem: Path) -> list[Any]:
    """Write the pictures of an image, and return what the page knows of it; see ``images.js``."""
    file = as_written(no_formula(str(item.image_path or "")))
    truth = "" if item.gt_label is None else ("anomalous" if bool(item.gt_label) else "normal")
    if is_unreadable(item):
        return [file, "", label_of(item), truth, "", 0, 0, [], as_written(reason_of(item))]
    picture = f"{FOLDER}/{stem.parent.name}/{stem.name}"
    return [file, in_digits(item.pred_score), label_of(item), truth, picture, *write_layers(item, stem), ""]


def _lines(parts: Iterable[Path]) -> Iterator[str]:
    """Yield the elements of an array of JSON, with the commas between them; those of several parts as in the table."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(part.open(encoding="utf-8")) for part in parts]
        lines = (
            files[0] if len(files) == 1 else sorted(chain(*files), key=lambda line: natural_key(json.loads(line)[0]))
        )
        for index, line in enumerate(lines):
            yield f",{line}" if index else line


def _in_html(data: Any) -> str:
    """Return JSON that can stand within a script of HTML."""
    return json.dumps(data, allow_nan=False).translate(NOT_IN_HTML)


def _hash(text: str) -> str:
    """Return the hash by which a policy of a page allows a script or a style."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def _palette_by_channel() -> dict[str, str]:
    """Return the values of red, green and blue along the palette, for a filter of SVG."""
    colours = mpl.colormaps[PALETTE](np.linspace(0, 1, PALETTE_STEPS))
    return {
        channel: " ".join(f"{value:.3f}" for value in values)
        for channel, values in zip("RGB", colours.T[:3], strict=True)
    }


def _environment() -> Environment:
    """Return the environment of the template."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html.jinja",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
