# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib mediclip update``: images that a person calls normal become part of the support set of a trained model."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from anomalib_mediclip.corrections.finetuning import train_on
from anomalib_mediclip.corrections.memory import (
    NormalSet,
    find_thresholds,
    pool_thresholds,
    remember_all,
    remember_more,
)
from anomalib_mediclip.corrections.normal_images import NormalImage, check_known, offered_images, original_support
from anomalib_mediclip.corrections.trained import Trained, check_output, read_trained, write_corrected
from anomalib_mediclip.data.datamodule import hash_of_contents
from anomalib_mediclip.display import set_slice_plane, set_window
from anomalib_mediclip.evaluation.calibration import CalibrationPostProcessor
from anomalib_mediclip.models.components.training_record import CORRECTIONS, RECORD

logger = logging.getLogger(__name__)

LISTED = 20  # rows of a printed table


def update_model(
    ckpt_path: Path,
    output: Path,
    normal: Path,
    run: Path | None = None,
    support: Path | None = None,
    finetune: bool = False,
    confirm: bool = False,
) -> str:
    """Write a model that knows more normal images.

    Args:
        ckpt_path (Path): Checkpoint of MediCLIP with a memory bank, or ``model.json`` of its artefact.
        output (Path): File to write, with the same ending.
        normal (Path): Folder of normal images, or a review whose images marked normal are taken.
        run (Path | None, optional): Folder of the run that was reviewed. Defaults to ``None``: that of the review.
        support (Path | None, optional): Folder of the data set that the model was trained on. Memory and calibration
            are then computed anew from all images. Defaults to ``None``.
        finetune (bool, optional): Whether the head is trained on, which needs ``support``. Defaults to ``False``.
        confirm (bool, optional): Whether images that the model takes for anomalous are added too. Defaults to
            ``False``.

    Returns:
        str: The effect, in words and as a table.

    Raises:
        FileNotFoundError: If a file is missing.
        FileExistsError: If the output exists.
        ValueError: If the model has no memory, there is nothing to add, an image is anomalous and not confirmed, or
            files are others than those of run and training.
    """
    check_output(ckpt_path, output)
    if finetune and support is None:
        msg = "--finetune trains on all support images: give the folder of those of the training as --support."
        raise ValueError(msg)
    trained = read_trained(ckpt_path)
    _check_model(trained)
    _show_as_trained(trained)
    offered = offered_images(trained, normal, run)
    former = [] if support is None else original_support(trained, support)
    if former:
        check_known(trained, offered)
    images, added = _not_known(trained.model, offered.new, normal)
    before, cut = added.scores(trained.model), trained.model.post_processor.normalized_image_threshold.item()
    _check_scores(images, before, cut, confirm)
    everything = [*former, *(image.path for image in (*offered.known, *images))] if former else []
    old = trained.model.post_processor.image_threshold.item()
    epochs = _learn(trained, added, everything, finetune)
    new = trained.model.post_processor.image_threshold.item()
    listed = [{"file": image.name, "sha256": image.sha256} for image in images]
    correction = {"kind": "normal images", "images": listed, "from_all_images": bool(former), "epochs": epochs}
    write_corrected(trained, output, _learnt_state(trained.model), correction | {"before": old, "after": new})
    after = added.scores(trained.model, among_others=not finetune)
    done = f"Wrote {output}: {len(images)} normal images were added. Threshold of raw scores: {old:.6g} before,"
    return f"{done} {new:.6g} now.\n{_table(images, before, after, cut)}"


def _check_model(trained: Trained) -> None:
    """Refuse a model without a memory or without a calibration."""
    model = trained.model
    if getattr(model.model, "memory_bank", None) is None:
        msg = (
            f"{trained.path} is a {model.name} without a memory of its support set, so images can only be added by a "
            "new training. MediCLIP with memory_bank has one; configs/model/mediclip_lite.yaml is an example."
        )
        raise ValueError(msg)
    processor = model.post_processor
    if not isinstance(processor, CalibrationPostProcessor) or processor.image_threshold.isnan():
        msg = f"{trained.path} is not calibrated. Finish its training, or validate it with Engine.validate, first."
        raise ValueError(msg)


def _show_as_trained(trained: Trained) -> None:
    """Show DICOM and NIfTI as in the training."""
    display = trained.content.get(RECORD, {}).get("display")
    if display:
        set_window(display["window"] or "")
        set_slice_plane(display["slice_plane"])


def _not_known(model: Any, offered: Sequence[NormalImage], normal: Path) -> tuple[list[NormalImage], NormalSet]:
    """Return the images that the memory does not hold yet, with their features."""
    images = list(offered)
    if images:
        added = _encoded(model, images)
        known = added.known(model)
        for image in images:
            if image.sha256 in known:
                logger.warning("%s is in the support set already, and is skipped.", image.name)
        images = [image for image in images if image.sha256 not in known]
    if not images:
        msg = f"{normal} has no image to add: none is marked as normal, or all are in the support set already."
        raise ValueError(msg)
    return images, _encoded(model, images) if known else added


def _encoded(model: Any, images: Sequence[NormalImage]) -> NormalSet:
    """Encode images; the bank knows them by their content."""
    return NormalSet(model, [image.path for image in images], [image.sha256 for image in images])


def _check_scores(images: Sequence[NormalImage], scores: Mapping[str, float], cut: float, confirm: bool) -> None:
    """Refuse images that the model takes for anomalous, unless a person confirms that they are normal."""
    suspicious = [(image.name, scores[image.sha256]) for image in images if scores[image.sha256] > cut]
    if not suspicious or confirm:
        return
    names = "\n".join(f"  {name}: {score:.3f}" for name, score in suspicious[:LISTED])
    more = f"\n  and {len(suspicious) - LISTED} more" if len(suspicious) > LISTED else ""
    msg = (
        f"The model takes {len(suspicious)} of {len(images)} images for anomalous (scores above {cut:.3g}):\n{names}"
        f"{more}\nA lesion that is added as normal will be missed. Look at them, and give --confirm if all are "
        "normal."
    )
    raise ValueError(msg)


def _learn(trained: Trained, added: NormalSet, everything: Sequence[Path], finetune: bool) -> int:
    """Add images to the memory of a model and calibrate it; return the epochs that were trained."""
    model, record = trained.model, trained.content.get(RECORD, {})
    seed = record.get("data", {}).get("seed", 0)
    processor = model.post_processor
    before = {name: buffer.clone() for name, buffer in processor.named_buffers(recurse=False)}
    fixed = any(correction["kind"] == "threshold" for correction in record.get(CORRECTIONS, []))
    if finetune:
        return train_on(model, everything, seed)
    if everything:
        support = NormalSet(model, everything, [hash_of_contents([path]) for path in everything])
        remember_all(model, support)
        find_thresholds(model, support, seed)
        pool_thresholds(processor, before, 0, len(everything), fixed)
    else:
        held = remember_more(model, added)
        find_thresholds(model, added, seed)
        pool_thresholds(processor, before, held, len(added.names), fixed)
    return 0


def _learnt_state(model: Any) -> dict[str, torch.Tensor]:
    """Return the state of a model that files hold."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith(model.unsaved)}


def _table(images: Sequence[NormalImage], before: Mapping[str, float], after: Mapping[str, float], cut: float) -> str:
    """Return the scores of the added images before and after, the highest first."""
    rows = sorted(((before[one.sha256], after[one.sha256], one.name) for one in images), reverse=True)
    lines = [f"{'before':>8} {'after':>8}  file"]
    lines += [f"{old:8.3f} {new:8.3f}  {name}" for old, new, name in rows[:LISTED]]
    if len(rows) > LISTED:
        lines.append(f"{'':17}  and {len(rows) - LISTED} more")
    lines.append(f"{fmean(before.values()):8.3f} {fmean(after.values()):8.3f}  mean")
    called = [sum(score > cut for score in scores.values()) for scores in (before, after)]
    return "\n".join([*lines, f"{called[0]:8d} {called[1]:8d}  called anomalous"])
