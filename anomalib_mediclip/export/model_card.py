# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Model card of an export: intended use, input and output, training, thresholds, metrics and versions."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib.post_processing import PostProcessor
from jinja2 import StrictUndefined, Template

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.versions import EXPORT_PACKAGES, installed_versions

logger = logging.getLogger(__name__)

CARD_NAME = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
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
        test=_table(_test(record.get("test") or {})),
        versions=_versions(record.get("versions") or {}),
    )


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
    cells = [(name, str(value).replace("|", "\\|").replace("\n", " ")) for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells), ""])
