# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Prediction of an archive from its list of files to the tables; a rerun does what is missing."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from anomalib_mediclip.archive.collection import Top, highest, join_parts
from anomalib_mediclip.archive.crew import MAX_DEATHS, Crew, GivenUp
from anomalib_mediclip.archive.manifest import find_changed, read_rows, renew_rows, write_manifest
from anomalib_mediclip.archive.pictures import write_pictures
from anomalib_mediclip.archive.plan import FILES_IN_SHARD, PARTS, QUARANTINE, Plan, reading_of_this_process
from anomalib_mediclip.archive.predictors import open_predictor
from anomalib_mediclip.archive.shard import Report
from anomalib_mediclip.archive.worker import Worker
from anomalib_mediclip.atomic import UNFINISHED, write_whole
from anomalib_mediclip.cluster.agreement import check_all_nodes, facts_of_this_node
from anomalib_mediclip.cluster.progress import Progress
from anomalib_mediclip.cluster.ray_session import available_slots, check_room, ray_session
from anomalib_mediclip.folder_lock import only_process
from anomalib_mediclip.io import hash_of_file

logger = logging.getLogger(__name__)

LISTED = 5  # shards that are named in a message


@dataclass(frozen=True)
class Workers:
    """Where an archive is predicted.

    Args:
        launcher (str): ``local``, in this process, or ``ray``.
        number (int | None, optional): Processes of Ray that predict. Defaults to ``None``: as many as find room.
        cpus (int | None, optional): CPU cores of each. Defaults to ``None``: all of this machine, or one with Ray.
        gpus (float, optional): GPUs of each. Defaults to ``0``.
        address (str | None, optional): Ray cluster; see :class:`~anomalib_mediclip.cluster.options.ClusterOptions`.
            Defaults to ``None``.
    """

    launcher: str = "local"
    number: int | None = None
    cpus: int | None = None
    gpus: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ValueError: If one is out of range.
        """
        for name, given, least in (("workers", self.number, 1), ("cpus", self.cpus, 1), ("gpus", self.gpus, 0)):
            if given is not None and given < least:
                msg = f"--{name} {given}: give at least {least}"
                raise ValueError(msg)

    @property
    def threads(self) -> int:
        """CPU cores of a process."""
        return self.cpus or (1 if self.launcher == "ray" else os.cpu_count() or 1)

    @property
    def device(self) -> str:
        """Device of a process."""
        return "cuda" if self.gpus else "cpu"


@dataclass
class Summary:
    """What came of a run.

    Attributes:
        plan (Plan): What was predicted.
        shards (int): Shards that were predicted in this run.
        images (int): Their images.
        unreadable (int): Those of them that could not be read.
        changed (int): Files that changed after they were listed.
        given_up (list[GivenUp]): Shards at which workers died.
        table (Path | None): ``predictions.csv``.
        page (Path | None): Page of the pictures.
    """

    plan: Plan
    shards: int = 0
    images: int = 0
    unreadable: int = 0
    changed: int = 0
    given_up: list[GivenUp] = field(default_factory=list)
    table: Path | None = None
    page: Path | None = None


def predict_archive(
    model: Path, images: Path, output: Path, workers: Workers, shards: int | None = None, top: Top = 100
) -> Summary:
    """Predict all images below a folder; a folder of results that is not complete is completed.

    Args:
        model (Path): Checkpoint, ``model.xml`` or ``model.onnx``.
        images (Path): Folder.
        output (Path): Folder of the results.
        workers (Workers): Where.
        shards (int | None, optional): Into how many pieces the list of files is cut. Defaults to ``None``: as in a
            former run, or pieces of a thousand files.
        top (Top, optional): Images whose pictures are drawn: a number, or ``anomalous``. Defaults to ``100``.

    Returns:
        Summary: What came of it.

    Raises:
        FileNotFoundError: If model or images do not exist.
        FileExistsError: If another process writes into the folder of the results.
        ValueError: If the folder has results of something else.
        OSError: If a file cannot be written; finished shards are kept.
    """
    for name, given, least in (("shards", shards, 1), ("top", top, 0)):
        if isinstance(given, int) and given < least:
            msg = f"--{name} {given}: give at least {least}"
            raise ValueError(msg)
    with only_process(output, "predicts into"):
        plan = _plan(model, images, output, shards)
        summary = Summary(plan)
        _predict(plan, plan.unfinished(), workers, summary)
        summary.table = join_parts(plan)
        chosen = highest(summary.table, top)
        if chosen:
            predictor = open_predictor(
                plan.model, workers.threads, "cpu" if workers.launcher == "ray" else workers.device
            )
            summary.page = write_pictures(plan, chosen, predictor)
    return summary


def _plan(model: Path, images: Path, output: Path, shards: int | None) -> Plan:
    """Return the plan of the folder, which is made in a first run; what has changed since is predicted again."""
    output = output.resolve()
    if not model.is_file():
        msg = f"there is no model {model}: give a checkpoint (model.ckpt) or an export (model.xml, model.onnx)"
        raise FileNotFoundError(msg)
    former = Plan.read(output)
    wanted = Plan(
        output=output,
        images=images.resolve(),
        model=model.resolve(),
        model_hash=hash_of_file(model),
        files=former.files if former else 0,
        shards=shards or (former.shards if former else 0),
        reading=reading_of_this_process(),
    )
    for folder in (PARTS, QUARANTINE):
        (output / folder).mkdir(exist_ok=True)
    if former is not None:
        former.check_same(wanted)
        plan = replace(former, model=wanted.model)
        _remove_unfinished(plan)
        _forget_changed(plan)
        return plan
    files = write_manifest(wanted.images, output)
    plan = replace(wanted, files=files, shards=min(files, shards or -(-files // FILES_IN_SHARD)))
    plan.write()
    return plan


def _remove_unfinished(plan: Plan) -> None:
    """Remove what a killed process has left unfinished."""
    for file in (*plan.output.glob("unfinished.*"), *(plan.output / PARTS).glob("unfinished.*")):
        if UNFINISHED.match(file.name):
            file.unlink(missing_ok=True)


def _forget_changed(plan: Plan) -> None:
    """Have shards predicted again of which a file has changed since it was listed."""
    changed = find_changed(plan.manifest)
    if not changed:
        return
    shards = {plan.shard_of(row) for row in changed}
    first = next(read_rows(plan.manifest, changed[0], changed[0] + 1)).path
    logger.warning(
        "%d files have changed or gone since they were listed, such as %s. Their %d shards are predicted again.",
        *(len(changed), first, len(shards)),
    )
    plan.forget(shards)  # before the list is renewed: a process that is killed in between finds the change again
    renew_rows(plan.manifest, changed)


def _predict(plan: Plan, shards: Sequence[int], workers: Workers, summary: Summary) -> None:
    """Predict shards, and add up what came of them."""
    if not shards:
        return
    run = _on_ray if workers.launcher == "ray" else _here
    with Progress("predict_archive", plan.shards, plan.shards - len(shards), "shards") as progress:
        for outcome, running in run(plan, shards, workers):
            if isinstance(outcome, Report):
                summary.shards += 1
                summary.images += outcome.images
                summary.unreadable += outcome.unreadable
                summary.changed += outcome.changed
                plan.quarantined(outcome.shard).unlink(missing_ok=True)
            elif outcome is not None:
                summary.given_up.append(outcome)
                _quarantine(plan, outcome)
            if outcome is not None:
                progress.finish(failed=isinstance(outcome, GivenUp))
            progress.show(running)


def _here(plan: Plan, shards: Sequence[int], workers: Workers) -> Iterator[tuple[Report, int]]:
    """Predict in this process."""
    worker = Worker(plan, workers.threads, workers.device, facts_of_this_node([plan.model, plan.manifest]))
    for shard in shards:
        yield worker.predict(shard), 1


def _on_ray(plan: Plan, shards: Sequence[int], workers: Workers) -> Iterator[tuple[Report | GivenUp | None, int]]:
    """Predict in actors of Ray."""
    files = [plan.model, plan.manifest]
    facts = facts_of_this_node(files)
    with ray_session(workers.address) as ray:
        check_room(ray, workers.threads, workers.gpus)
        check_all_nodes(ray, facts, files)
        actor = ray.remote(num_cpus=workers.threads, num_gpus=workers.gpus, max_restarts=0, max_task_retries=0)(Worker)

        def size() -> int:
            room = available_slots(ray, workers.threads, workers.gpus)
            return room if workers.number is None else min(room, workers.number)

        crew = Crew(ray, lambda: actor.remote(plan, workers.threads, workers.device, facts), size, shards)
        for outcome in crew.run():
            yield outcome, crew.running


def _quarantine(plan: Plan, outcome: GivenUp) -> None:
    """List the files of a shard that was given up."""
    files = "".join(f"{row.path}\n" for row in read_rows(plan.manifest, *plan.rows_of(outcome.shard)))
    write_whole(plan.quarantined(outcome.shard), files.encode("utf-8", "backslashreplace"))


def conclude(summary: Summary) -> None:
    """Print what came of a run.

    Args:
        summary (Summary): Summary.

    Raises:
        RuntimeError: If shards were left out, naming them.
    """
    plan = summary.plan
    before = plan.shards - summary.shards - len(summary.given_up)
    former = f" ({before} of {plan.shards} shards were finished before)" if before else ""
    print(f"{summary.images} images predicted in {summary.shards} shards{former}, {summary.unreadable} unreadable")
    if summary.changed:
        print(f"{summary.changed} files changed while they were predicted; run again to predict them as they are now")
    print(f"table: {summary.table}" + (f"\npictures: {summary.page}" if summary.page else ""))
    if summary.given_up:
        listed = "; ".join(f"shard {one.shard}: {one.reason}" for one in summary.given_up[:LISTED])
        msg = (
            f"{len(summary.given_up)} of {plan.shards} shards were given up after {MAX_DEATHS} attempts and are not in "
            f"the table ({listed}). {plan.output / QUARANTINE} lists their files. Remove the cause, or "
            "give workers more memory, and run again: only these shards are tried."
        )
        raise RuntimeError(msg)
