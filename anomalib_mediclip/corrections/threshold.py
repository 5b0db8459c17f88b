# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib mediclip threshold``: the threshold that a person chose becomes that of the model."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.corrections.graph import WEIGHTS, find_threshold, weights_of, whole_graph
from anomalib_mediclip.corrections.reviewed_run import check_checkpoint, check_threshold, report_of_run
from anomalib_mediclip.corrections.trained import ARTIFACT, check_output, read_trained, write_corrected
from anomalib_mediclip.evaluation.calibration import CalibrationPostProcessor, LogitCalibrationPostProcessor
from anomalib_mediclip.export.model_card import CARD_NAME, corrected_card
from anomalib_mediclip.io import hash_of_file
from anomalib_mediclip.models.components.checkpoint_methods import POST_PROCESSOR
from anomalib_mediclip.prediction.review import Review, read_review

logger = logging.getLogger(__name__)

CLOSE = 1e-5  # a score that differs less from the threshold might be rounded to its other side
IMAGE_THRESHOLD = POST_PROCESSOR + "_image_threshold"  # name in checkpoints


def set_threshold(
    ckpt_path: Path, output: Path, review: Path | None = None, value: float | None = None, run: Path | None = None
) -> str:
    """Write a model whose image threshold is where a person wants it.

    Args:
        ckpt_path (Path): Checkpoint, ``model.json`` of an artefact, or ``.onnx`` or ``.xml`` file of an export.
        output (Path): File to write, with the same ending.
        review (Path | None, optional): Review whose threshold to take. Defaults to ``None``.
        value (float | None, optional): The threshold itself, in shown scores. Defaults to ``None``.
        run (Path | None, optional): Folder of the run that was reviewed. Defaults to ``None``: that of the review.

    Returns:
        str: What was done, in words.

    Raises:
        FileNotFoundError: If a file is missing.
        FileExistsError: If the output exists.
        ValueError: If both or none of review and value are given, the review is that of another run or another model,
            or the threshold of the model cannot be moved.
    """
    check_output(ckpt_path, output)
    if (review is None) == (value is None):
        msg = "Give either --review, whose threshold is taken, or --value, the threshold itself."
        raise ValueError(msg)
    found = None if review is None else read_review(review)
    cut = chosen_cut(found) if found else float(value or 0)
    report = report_of_run(found, review, run) if found and review else None
    described = {"kind": "threshold", "shown": cut, **_describe_review(found, review)}
    change = _set_in_graph if ckpt_path.suffix in WEIGHTS else _set_in_trained
    before, after = change(ckpt_path, output, cut, report, described)
    return _summary(output, cut, before, after, found)


def chosen_cut(review: Review) -> float:
    """Return the threshold of a review, moved half way to the next score where it lies on one.

    An image whose score is the threshold itself is normal. Shown scores are computed anew with the new threshold, and
    rounding could put such an image on the other side.

    Args:
        review (Review): Review.

    Returns:
        float: Threshold in shown scores.

    Raises:
        ValueError: If the scores are no calibrated ones.

    Example:
        >>> from anomalib_mediclip.prediction.review import ReviewedImage
        >>> images = tuple(ReviewedImage(f"{score}.png", score=score) for score in (0.25, 0.5, 0.75))
        >>> chosen_cut(Review(images, 0.3, "")), chosen_cut(Review(images, 0.5, ""))
        (0.3, 0.625)
    """
    scores = [image.score for image in review.images if image.score is not None]
    if any(not 0 <= score <= 1 for score in scores):
        msg = "The scores of the review are not calibrated: they leave [0, 1]. Review a run with calibrated scores."
        raise ValueError(msg)
    cut = review.threshold
    close = [score for score in scores if abs(score - cut) < CLOSE]
    if not close:
        return cut
    below = max([score for score in scores if score <= cut], default=cut)
    above = min([score for score in scores if score > cut], default=1.0)
    return (below + above) / 2


def _set_in_trained(
    path: Path, output: Path, cut: float, report: dict[str, Any] | None, described: dict[str, Any]
) -> tuple[float, float]:
    """Set the threshold of a checkpoint or an artefact; return that of before and the new one, in raw scores."""
    trained = read_trained(path)
    processor = trained.model.post_processor
    if not isinstance(processor, CalibrationPostProcessor):
        msg = f"{path} has no calibration of anomalib-mediclip whose threshold could be moved."
        raise ValueError(msg)  # noqa: TRY004  # the user gave another file
    if report is not None and path.suffix == ARTIFACT:
        check_threshold(report, processor.image_threshold.item(), path)
    elif report is not None:
        check_checkpoint(report, {trained.sha256}, path)
    before, after = processor.image_threshold, processor.threshold_for_cut(cut)
    state = {IMAGE_THRESHOLD: after.to(trained.content["state_dict"][IMAGE_THRESHOLD])}
    thresholds = {"before": before.item(), "after": after.item()}
    write_corrected(trained, output, state, described | thresholds)
    return before.item(), after.item()


def _set_in_graph(
    path: Path, output: Path, cut: float, report: dict[str, Any] | None, described: dict[str, Any]
) -> tuple[float, float]:
    """Set the threshold of an ONNX or OpenVINO graph, and copy its card; return that of before and the new one."""
    graph = find_threshold(path)
    if report is not None:
        check_threshold(report, graph.value, path)
    processor = LogitCalibrationPostProcessor(image_sensitivity=1 - graph.cut)
    processor.load_state_dict({"_image_threshold": torch.tensor(graph.value)}, strict=False)
    after = processor.threshold_for_cut(cut).item()
    card, new_card = path.with_name(CARD_NAME), output.with_name(CARD_NAME)
    for file in (weights_of(output), new_card):
        if file.exists():
            msg = f"{file} exists, and no file is overwritten. Give --output another folder."
            raise FileExistsError(msg)
    with whole_graph(output) as unfinished:
        graph.write(after, unfinished)
    if card.is_file():
        correction = {"of": hash_of_file(path), **described, "before": graph.value, "after": after}
        write_whole(new_card, corrected_card(card.read_text(encoding="utf-8"), path.name, output.name, correction))
    return graph.value, after


def _describe_review(review: Review | None, path: Path | None) -> dict[str, Any]:
    """Describe a review in plain data."""
    if review is None or path is None:
        return {}
    return {"review": hash_of_file(path), "images": len(review.images), "marked": len(review.marks)}


def _summary(output: Path, cut: float, before: float, after: float, review: Review | None) -> str:
    """Say what was done, and what it means for the images of the review."""
    done = (
        f"Wrote {output}: images that were shown above {cut:.6g} are anomalous now (threshold of raw scores "
        f"{before:.6g} before, {after:.6g} now). Shown scores move with it."
    )
    lines = [done]
    if review is not None:
        lines += [_count(review, mark, cut) for mark in ("anomalous", "normal") if mark in review.marks.values()]
    return "\n".join(lines)


def _count(review: Review, mark: str, cut: float) -> str:
    """Say how many images with a mark are called anomalous now."""
    scores: Sequence[float] = [i.score for i in review.images if i.mark == mark and i.score is not None]
    return f"Of {len(scores)} images marked {mark}, {sum(score > cut for score in scores)} are called anomalous."
