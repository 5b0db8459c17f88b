# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Model card of an export: intended use, input and output, training, thresholds, metrics and versions."""

import html
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalib.post_processing import PostProcessor
from jinja2 import StrictUndefined, Template

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.versions import EXPORT_PACKAGES, installed_versions

logger = logging.getLogger(__name__)

CARD_NAME = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
CORRECTIONS_TITLE = "## Corrections after the training"
METRICS_TITLE = "## Metrics on the test set"
BEFORE = ", before the corrections"
UNKNOWN = "not recorded"
UNDEFINED = "undefined, such as an AUROC of one class"


def write_model_card(model: Any, exported: Path, form: str) -> Path:
    """Write the card of an export beside it.

    Args:
        model (Any): Model of this plugin.
        exported (Path): File of the export.
        form (str): Format and compression, in words.

    Returns:
        Path: The card, ``MODEL_CARD.md``.
    """
    card = exported.with_name(CARD_NAME)
    write_whole(card, model_card(model, exported, form))
    logger.info("Wrote %s and its model card, %s", exported, card)
    return card


def model_card(model: Any, exported: Path, form: str) -> str:
    """Return the card of an export.

    Args:
        model (Any): Model of this plugin.
        exported (Path): File of the export.
        form (str): Format and compression, in words.

    Returns:
        str: Markdown.
    """
    record: Mapping[str, Any] = model.training_record
    data: Mapping[str, Any] = record.get("data") or {}
    resize = type(getattr(model.pre_processor, "export_transform", None)).__name__
    is_antialiased = resize == "AntialiasedResize"
    template = Template(TEMPLATE.read_text(encoding="utf-8"), trim_blocks=True, undefined=StrictUndefined)
    return template.render(
        name=model.name,
        data_set=data.get("data_set", "a data set that was not recorded"),
        file=exported.name,
        form=form,
        height=model.image_size[0],
        width=model.image_size[1],
        resize="antialiased, as in training" if is_antialiased else f"{resize}, as anomalib exports it",
        training=_table(_training(model, record, data)),
        thresholds=_table(_thresholds(model) | _false_alarms(record)),
        corrections=describe_corrections(record.get("corrections") or []),
        test=_table(_test(record.get("test") or {})),
        versions=_versions(record.get("versions") or {}),
    )


def corrected_card(card: str, source: str, exported: str, correction: Mapping[str, Any]) -> str:
    """Return the card of an exported graph whose image threshold was replaced.

    Args:
        card (str): Card of the graph before, Markdown.
        source (str): File name of the graph before.
        exported (str): File name of the graph now.
        correction (Mapping[str, Any]): What was done; see :func:`describe_corrections`.

    Returns:
        str: Markdown.
    """
    card = card.replace(f"`{source}`", f"`{exported}`", 1)
    card = re.sub(r"^\| image \| .* \|$", f"| image | {correction['after']:.6g} |", card, count=1, flags=re.MULTILINE)
    card = re.sub(r"^\| normal images expected .*\n", "", card, count=1, flags=re.MULTILINE)
    entry = describe_corrections([correction])
    if CORRECTIONS_TITLE in card:
        entry = entry.removeprefix(CORRECTIONS_TITLE).lstrip()
    return re.sub(
        f"^{METRICS_TITLE}.*$", lambda _: f"{entry}\n{METRICS_TITLE}{BEFORE}", card, count=1, flags=re.MULTILINE
    )


def describe_corrections(corrections: Sequence[Mapping[str, Any]]) -> str:
    """Say what was changed after the training.

    Args:
        corrections (Sequence[Mapping[str, Any]]): Entries of the record of a training: ``kind``, and what belongs to
            it.

    Returns:
        str: Section in Markdown; empty if nothing was changed.
    """
    if not corrections:
        return ""
    parts = [_moved_threshold(one) if one["kind"] == "threshold" else _added_images(one) for one in corrections]
    return "\n".join([CORRECTIONS_TITLE, "", *parts])


def _moved_threshold(correction: Mapping[str, Any]) -> str:
    """Say who moved the threshold of images, and where to."""
    reviewed = f" in a review of {correction['images']} images" if "review" in correction else ""
    return (
        f"A person moved the threshold of images{reviewed}, from {correction['before']:.6g} to "
        f"{correction['after']:.6g}: where scores of {correction['shown']:.6g} were shown before.\n"
    )


def _added_images(correction: Mapping[str, Any]) -> str:
    """List the normal images that were added to the support set."""
    trained = ", and the head was trained on" if correction["epochs"] else ", without training"
    rows = "".join(f"| {in_cell(image['file'])} | {image['sha256']} |\n" for image in correction["images"])
    title = f"{len(correction['images'])} normal images were added to the support set{trained}:"
    return f"{title}\n\n| file | SHA-256 |\n| --- | --- |\n{rows}"


def _training(model: Any, record: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """List the known facts of the training."""
    return {
        "data set": data.get("data_set", UNKNOWN),
        "normal images trained on (k)": data.get("k_shot", UNKNOWN),
        "drawn from": data.get("pool_size", UNKNOWN),
        "seed of the draw": data.get("seed", UNKNOWN),
        "SHA-256 of the support set": data.get("support_set_hash", UNKNOWN),
        "seed of the model": record.get("seed", model.hparams.get("seed", UNKNOWN)),
        "hash of the weights": record.get("weights", UNKNOWN),
        "epochs": record.get("epochs", UNKNOWN),
        "steps": record.get("steps", UNKNOWN),
        **model.describe(),
    }


def _test(test: Mapping[str, Any]) -> dict[str, Any]:
    """List the metrics of the test that was recorded with these weights and thresholds, and what they were found on."""
    if not test:
        return {"all": UNKNOWN}
    metrics = {name: UNDEFINED if value is None else value for name, value in test["metrics"].items()}
    return {"data set": test["data"]["data_set"], "images": test["images"], **metrics}


def _thresholds(model: Any) -> dict[str, Any]:
    """List the thresholds before and after calibration."""
    processor = model.post_processor
    if not isinstance(processor, PostProcessor):
        return {"all": "none: the model has no post-processor of anomalib"}
    thresholds = {"image": processor.image_threshold, "pixel": processor.pixel_threshold}
    found = {
        name: "none: the model is not calibrated" if value.isnan() else f"{value.item():.6g}"
        for name, value in thresholds.items()
    }
    cuts = {"image": processor.normalized_image_threshold, "pixel": processor.normalized_pixel_threshold}
    return found | {f"{name}, after calibration": f"{value.item():.6g}" for name, value in cuts.items()}


def _false_alarms(record: Mapping[str, Any]) -> dict[str, str]:
    """Say what the calibration expects of the threshold of images, if that was recorded."""
    alarms = record.get("expected_false_alarms")
    return {} if alarms is None else {"normal images expected to be called anomalous": f"{100 * alarms:.0f} %"}


def _versions(trained: Mapping[str, str]) -> str:
    """Return a table of versions at training and at export."""
    exported = installed_versions(EXPORT_PACKAGES)
    rows = [f"| {name} | {trained.get(name, UNKNOWN)} | {number} |" for name, number in exported.items()]
    return "\n".join(["| | training | export |", "| --- | --- | --- |", *rows, ""])


def _table(rows: Mapping[str, Any]) -> str:
    """Return a table of two columns; line breaks and bars would break it."""
    cells = [(name, in_cell(str(value))) for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells), ""])


def in_cell(text: str) -> str:
    """Return text as a cell of a Markdown table shows it: names of files may hold HTML, bars and line breaks."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\r", " ").replace("\n", " ")
