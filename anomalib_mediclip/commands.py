# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Commands that the plugin adds to ``anomalib``: the benchmark, and the group ``mediclip``.

To add a command to the group, write a function here and name it in ``COMMANDS``. Its signature gives the arguments,
its docstring the help.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from anomalib_mediclip.benchmark import FewShotBenchmark
from anomalib_mediclip.host.added_commands import add_group, add_pipeline


def prepare(
    source: Path,
    target: Path,
    labels: Path | None = None,
    test_fraction: float = 0.5,
    seed: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
) -> None:
    """Copy images into the folders of a MedicalFolder, each patient either in the training or in the test.

    SOURCE is BUSI, BrainMRI or CheXpert as downloaded, or any folder or zip file of pictures, DICOM or NIfTI files with
    a label table, or sorted into folders named normal and abnormal. TARGET gets train/normal, test/normal,
    test/abnormal and masks, a manifest.csv of all images, and report.md and report.json with copies and images that
    look the same. Files are copied unchanged, and nothing is overwritten. Give the same command again to complete one
    that was interrupted. Then: anomalib train --model MediCLIP --data MedicalFolder --data.root TARGET

    Args:
        source: Folder or zip file of the images.
        target: Folder to write to. It does not exist, or is that of the same command before.
        labels: Table (csv) with the columns file and label (normal or abnormal), and perhaps mask, patient and split
            (train or test). A file is named as in SOURCE; a folder stands for all its images. Several masks are
            separated by |. Images that are not in the table are not used.
        test_fraction: Part of the normal images to test on, from 0 to below 1. Abnormal images are always tested.
        seed: Seed of the draw of the normal test images.
        on_error: What to do about images and masks that cannot be used: stop, or skip and list them in the report.
    """
    from anomalib_mediclip.prepare import prepare as run
    from anomalib_mediclip.prepare.report import summarise

    print(summarise(run(source, target, labels, test_fraction, seed, on_error), target))


def predict_archive(
    model: Path,
    images: Path,
    output: Path,
    shards: int | None = None,
    launcher: Literal["local", "ray"] = "local",
    workers: int | None = None,
    cpus: int | None = None,
    gpus: float = 0,
    address: str | None = None,
    top: int | Literal["anomalous"] = 100,
) -> None:
    """Predict an archive of any size, on this machine or on a cluster, and go on where a run was interrupted.

    MODEL is a checkpoint, or model.xml or model.onnx as anomalib export writes them; OpenVINO is the fastest on CPUs.
    IMAGES is a folder that is searched recursively. OUTPUT gets predictions.csv and predictions.parquet with a row for
    every image, and pictures/index.html with the highest scores. The list of files is cut into shards; each is
    predicted as a whole, so give the same command again after an interruption. An unreadable file costs its row.

    Args:
        model: Checkpoint (model.ckpt) or exported file (model.xml, model.onnx). All nodes must see it.
        images: Folder of the images. All nodes must see it.
        output: Folder to write to. It does not exist, or is that of the same command before.
        shards: Number of pieces into which the list of files is cut; by default a thousand files each.
        launcher: Where to predict: local, in this process, or ray, in processes of Ray.
        workers: Processes of Ray; by default as many as find room.
        cpus: CPU cores of each process; by default all of this machine (local) or one (ray).
        gpus: GPUs of each process. Exported files run on the CPU.
        address: Running Ray cluster, such as 10.0.0.1:6379; by default Ray is started on this machine.
        top: Images whose pictures are drawn: those with the highest scores, or anomalous for all above the threshold.
    """
    from anomalib_mediclip.cluster.options import require_cluster

    require_cluster("pyarrow", purpose="predict_archive")
    from anomalib_mediclip.archive import Workers, conclude
    from anomalib_mediclip.archive import predict_archive as run

    conclude(run(model, images, output, Workers(launcher, workers, cpus, gpus, address), shards, top))


def threshold(
    *, ckpt_path: Path, output: Path, review: Path | None = None, value: float | None = None, run: Path | None = None
) -> None:
    """Write a model with the image threshold that a person chose, in a review or as a value.

    A new file is written, and nothing else of the model changes. Images that were shown above the threshold are called
    anomalous from then on; shown scores move with the threshold, so that they are cut at 0.5 again.

    Args:
        ckpt_path: Checkpoint, model.json of an export to torch, or model.onnx or model.xml.
        output: File to write, with the same ending. Of model.onnx and model.xml it lies in another folder.
        review: review.csv, as the review page of a prediction exports it.
        value: The threshold itself, in the units of the shown scores, above 0 and below 1.
        run: Folder of the prediction that was reviewed. Give it where review.csv does not lie there.
    """
    from anomalib_mediclip.corrections.threshold import set_threshold

    print(set_threshold(ckpt_path, output, review, value, run))


def update(
    *,
    ckpt_path: Path,
    normal: Path,
    output: Path,
    run: Path | None = None,
    support: Path | None = None,
    finetune: bool = False,
    confirm: bool = False,
) -> None:
    """Write a MediCLIP with a memory bank that knows more normal images.

    The images are added to the memory of the support set, and statistics and thresholds follow; no weight is trained.
    The scores of the added images are printed: before, and after, each compared with the other images only. A new file
    is written.

    Args:
        ckpt_path: Checkpoint of MediCLIP with a memory bank, or model.json of its export to torch.
        normal: Folder of normal images, or review.csv, of which the images marked normal are taken.
        output: File to write, with the same ending.
        run: Folder of the prediction that was reviewed. Give it where review.csv does not lie there.
        support: Folder of the data set that the model was trained on. Memory and thresholds are then computed anew from
            all images, old and new.
        finetune: Whether to train the head on from its weights, on all images. It needs SUPPORT.
        confirm: Whether to add images, too, that the model takes for anomalous.
    """
    from anomalib_mediclip.corrections.update import update_model

    print(update_model(ckpt_path, output, normal, run, support, finetune, confirm))


COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "predict_archive": predict_archive,
    "threshold": threshold,
    "update": update,
}


def install() -> None:
    """Make them subcommands of ``anomalib``."""
    add_pipeline("few_shot_benchmark", FewShotBenchmark)
    add_group("mediclip", "Prepare images, predict archives, and correct trained models.", COMMANDS)
