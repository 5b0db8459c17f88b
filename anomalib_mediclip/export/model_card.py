# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Model card of an export: intended use, input and output, training, thresholds, metrics and versions."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib.post_processing import PostProcessor

from anomalib_mediclip.versions import EXPORT_PACKAGES, installed_versions

logger = logging.getLogger(__name__)

CARD_NAME = "MODEL_CARD.md"
UNKNOWN = "not recorded"

USE = """\
For research on anomaly detection in images of the kind it was trained on: same modality, device, view and preparation.
It marks what differs from the normal images it has seen, which need not be disease, and misses what does not differ.

**Not a medical device.** It must not be used to diagnose, to treat, or to decide about a patient. It was not validated
clinically; metrics on other data, patients or devices than those below may be much lower. The threshold was set on
synthetic anomalies, and sensitivity and specificity at it are not those on real lesions.
"""

INPUT = """\
| | name | shape | values |
| --- | --- | --- | --- |
| input | `input` | (B, 3, H, W), any B, and any H and W unless `--input_size` was given | float32 RGB in [0, 1] |
| output | `anomaly_map` | (B, 1, {height}, {width}) | float32 in [0, 1] |
| output | `pred_score` | (B,) | float32 in [0, 1], 0.5 at the threshold |
| output | `pred_mask` | (B, 1, {height}, {width}) | bool |
| output | `pred_label` | (B,) | bool, true where anomalous |

Resizing to {height} x {width} ({resize}) and normalisation are in the model. An ONNX or OpenVINO graph cannot refuse
wrong values: 8-bit values given as float, or normalised ones, give predictions without meaning. Divide 8-bit values by
255, map 16-bit values to [0, 1] as in training, repeat a grey channel three times, drop an alpha channel, and make
images of more than some 60 million pixels smaller first. `anomalib_mediclip.export.ExportedModel` checks all this.
"""

CALIBRATION = """\
Found on synthetic anomalies, in the units of the model before calibration. The calibration moves them to 0.5; labels
and masks are cut where the last two rows say.
"""

PRECISION = """\
OpenVINO computes in bfloat16 or float16 where the hardware has them, which changes maps. For the figures of the
checkpoint set the precision: `OpenVINOInferencer(path, config={"INFERENCE_PRECISION_HINT": "f32"})`.
"""


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
    card.write_text(model_card(model, exported, form), encoding="utf-8")
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
    height, width = model.image_size
    resize = type(getattr(model.pre_processor, "export_transform", None)).__name__
    antialiased = (
        "antialiased, as in training" if resize == "AntialiasedResize" else f"{resize}, as anomalib exports it"
    )
    title = f"# {model.name} on {data.get('data_set', 'a data set that was not recorded')}"
    sections = {
        title: f"`{exported.name}`: {form}.\n",
        "## Intended use and its limits": USE,
        "## Input and output": INPUT.format(height=height, width=width, resize=antialiased)
        + ("\n" + PRECISION if form.startswith("OpenVINO") else ""),
        "## Training": _table(_training(model, record, data)),
        "## Thresholds": _table(_thresholds(model)) + "\n" + CALIBRATION,
        "## Metrics on the test set": _table(record.get("metrics") or {"all": UNKNOWN}),
        "## Versions": _versions(record.get("versions") or {}),
    }
    return "\n".join(f"{heading}\n\n{text}" for heading, text in sections.items())


def _training(model: Any, record: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """List what is known of the training."""
    return {
        "data set": data.get("data_set", UNKNOWN),
        "normal images trained on (k)": data.get("k_shot", UNKNOWN),
        "drawn from": data.get("pool_size", UNKNOWN),
        "seed of the draw": data.get("seed", UNKNOWN),
        "SHA-256 of the support set": data.get("support_set_hash", UNKNOWN),
        "seed of the model": model.hparams.get("seed", UNKNOWN),
        "epochs": record.get("epochs", UNKNOWN),
        "steps": record.get("steps", UNKNOWN),
        **model.describe(),
    }


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


def _versions(trained: Mapping[str, str]) -> str:
    """Return a table of versions at training and at export."""
    exported = installed_versions(EXPORT_PACKAGES)
    rows = [f"| {name} | {trained.get(name, UNKNOWN)} | {number} |" for name, number in exported.items()]
    return "\n".join(["| | training | export |", "| --- | --- | --- |", *rows, ""])


def _table(rows: Mapping[str, Any]) -> str:
    """Return a table of two columns; line breaks and bars would break it."""
    cells = [(name, str(value).replace("|", "\\|").replace("\n", " ")) for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells), ""])
