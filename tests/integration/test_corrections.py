# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A reviewed threshold and images that were added, from the checkpoint to files that run without this package."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.corrections.threshold import set_threshold
from anomalib_mediclip.corrections.trained import read_trained
from anomalib_mediclip.corrections.update import update_model
from anomalib_mediclip.export import load_artifact
from anomalib_mediclip.host.checkpoint_io import read_checkpoint
from anomalib_mediclip.io import hash_of_file, read_image
from anomalib_mediclip.prediction.review import Review, ReviewedImage, write_review
from tests.integration.test_memory_bank import fitted, joined_model
from tests.integration.test_prepare_command import anomalib
from tests.integration.test_training import checkpoint_of, engine, sample_datamodule

ALONE = """
import sys
import numpy as np
images, graph = np.load(sys.argv[1]), sys.argv[2]
if graph.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(graph)
    labels = dict(zip([one.name for one in session.get_outputs()], session.run(None, {"input": images})))["pred_label"]
else:
    import openvino
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    labels = compiled(images)[compiled.output("pred_label")]
assert not {"torch", "anomalib", "anomalib_mediclip.export"} & set(sys.modules)
print("".join(str(int(label)) for label in labels))
"""


@pytest.fixture(scope="module")
def folder(official, sample_data, tmp_path_factory) -> Path:
    """Train a model with a memory of 8 images, and predict the test images; return the folder of both."""
    folder = tmp_path_factory.mktemp("corrected")
    fitted(joined_model(official), sample_data, folder / "training", epochs=4)
    shutil.copy(checkpoint_of(folder / "training"), folder / "model.ckpt")
    shutil.copy(next((folder / "training").rglob("support_set.txt")), folder)
    (folder / "run").mkdir()
    predict(folder / "model.ckpt", sample_data / "test", folder / "run")
    return folder


def predict(checkpoint: Path, images: Path, folder: Path) -> dict[str, tuple[float, str]]:
    """Predict a folder, and return scores and labels by file; the table and the report of the run are in ``folder``."""
    run = engine(folder / "engine")
    model = MediCLIP.load_from_checkpoint(checkpoint)
    model.visualizer = None
    run.predict(model, data_path=images, ckpt_path=checkpoint, return_predictions=False)
    for name in ("predictions.csv", "run.json"):
        shutil.copy(Path(run.trainer.default_root_dir) / name, folder)
    return table_of(folder)


def table_of(folder: Path) -> dict[str, tuple[float, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: (float(row["score"]), row["label"]) for row in csv.DictReader(file)}


def write_review_of(run: Path, threshold: float, marks: dict[str, str] | None = None) -> Path:
    """Write a review of a run, and return its file."""
    images = tuple(ReviewedImage(f, (marks or {}).get(f, ""), "", s, label) for f, (s, label) in table_of(run).items())
    file = run / "review.csv"
    write_review(file, Review(images, threshold, hash_of_file(run / "predictions.csv")))
    return file


def reviewed_threshold(run: Path) -> float:
    """Return the score of an image in the middle of those that are normal so far: an awkward threshold."""
    scores = sorted(score for score, _ in table_of(run).values())
    return scores[len(scores) // 3]


def expected_labels(run: Path) -> dict[str, str]:
    cut = reviewed_threshold(run)
    return {file: "anomalous" if score > cut else "normal" for file, (score, _) in table_of(run).items()}


def labels_alone(graph: Path, files: list[str], folder: Path) -> dict[str, str]:
    """Return the labels of a graph run by its runtime, in a process that knows nothing of this package."""
    np.save(folder / "images.npy", np.concatenate([read_image(file)[None].numpy() for file in files]))
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "images.npy"), str(graph)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={"ANOMALIB_MEDICLIP_AUTOLOAD": "0"}, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return dict(zip(files, ("anomalous" if digit == "1" else "normal" for digit in result.stdout.strip()), strict=True))


@pytest.mark.slow
def test_a_reviewed_threshold_survives_every_way_to_predict(folder: Path, sample_data: Path, tmp_path: Path) -> None:
    expected = expected_labels(folder / "run")
    assert expected != {file: label for file, (_, label) in table_of(folder / "run").items()}
    review, new = write_review_of(folder / "run", reviewed_threshold(folder / "run")), tmp_path / "new.ckpt"
    result = anomalib(
        "mediclip",
        "threshold",
        "--ckpt_path",
        folder / "model.ckpt",
        "--output",
        new,
        "--review",
        review,
        folder=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"Wrote {new}: images that were shown above" in result.stdout
    after = predict(new, sample_data / "test", tmp_path)
    assert {file: label for file, (_, label) in after.items()} == expected
    assert json.loads((tmp_path / "run.json").read_text())["thresholds"]["image_sensitivity"] == 0.5
    for form in ("onnx", "openvino"):
        path = engine(tmp_path).export(joined(new), form, export_root=tmp_path)
        assert labels_alone(path, list(expected), tmp_path) == expected
        assert "in a review of 40 images" in path.with_name("MODEL_CARD.md").read_text()
        replaced = tmp_path / form / path.name
        set_threshold(path, replaced, value=0.61)
        moved = {file: "anomalous" if score > 0.61 else "normal" for file, (score, _) in after.items()}
        assert labels_alone(replaced, list(expected), tmp_path) == moved != expected
        assert replaced.with_name("MODEL_CARD.md").read_text().count("A person moved the threshold") == 2


def joined(checkpoint: Path) -> MediCLIP:
    return MediCLIP.load_from_checkpoint(checkpoint).eval()


def test_the_record_says_what_was_moved_and_an_artefact_is_moved_too(folder: Path, tmp_path: Path) -> None:
    source = folder / "model.ckpt"
    set_threshold(source, tmp_path / "new.ckpt", value=0.7)
    record = read_checkpoint(tmp_path / "new.ckpt")["training_record"]
    (correction,) = record["corrections"]
    moved = joined(tmp_path / "new.ckpt").post_processor.image_threshold.item()
    old = joined(source).post_processor.image_threshold.item()
    assert correction == {"of": hash_of_file(source), "kind": "threshold", "shown": 0.7, "before": old, "after": moved}
    assert moved == pytest.approx(old + np.log(0.7 / 0.3), abs=1e-5)
    assert "expected_false_alarms" not in record
    path = engine(tmp_path).export(joined(source), "torch", export_root=tmp_path)
    review = write_review_of(folder / "run", 0.7)
    set_threshold(path.with_suffix(".json"), tmp_path / "moved" / "model.json", review)
    with pytest.raises(ValueError, match="the review is that of another model"):
        set_threshold(tmp_path / "moved" / "model.json", tmp_path / "again" / "model.json", review)
    loaded = load_artifact(tmp_path / "moved")
    assert loaded.post_processor.image_threshold.item() == moved
    assert (
        "A person moved the threshold of images in a review of 40 images, from"
        in (tmp_path / "moved" / "MODEL_CARD.md").read_text()
    )


def test_what_cannot_be_moved_is_refused(folder: Path, official, sample_data, tmp_path: Path) -> None:
    source, output = folder / "model.ckpt", tmp_path / "new.ckpt"
    review = write_review_of(folder / "run", 0.6)
    set_threshold(source, tmp_path / "other.ckpt", value=0.6)
    with pytest.raises(ValueError, match=r"which is not .*other\.ckpt: its scores mean something else"):
        set_threshold(tmp_path / "other.ckpt", output, review)
    with pytest.raises(FileExistsError, match=r"model\.ckpt exists, and no file is overwritten"):
        set_threshold(source, source, value=0.6)
    with pytest.raises(ValueError, match="Give either --review"):
        set_threshold(source, output)
    with pytest.raises(ValueError, match=r"must end in \.ckpt"):
        set_threshold(source, tmp_path / "model.onnx", value=0.6)
    fitted(joined_model(official, memory_bank=False), sample_data, tmp_path / "paper", epochs=1)
    with pytest.raises(ValueError, match="without a memory of its support set"):
        update_model(checkpoint_of(tmp_path / "paper"), output, sample_data / "train")
    assert not output.exists()


def test_a_graph_that_ends_in_another_way_is_refused(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1])]
    outputs = [helper.make_tensor_value_info("pred_score", TensorProto.FLOAT, [1])]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["input"], ["pred_score"])], "other", inputs, outputs)
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"does not end in sigmoid\(score - threshold\)"):
        set_threshold(tmp_path / "model.onnx", tmp_path / "replaced" / "model.onnx", value=0.6)
    (tmp_path / "model.onnx").write_text("no graph")
    with pytest.raises(ValueError, match="cannot be read as ONNX"):
        set_threshold(tmp_path / "model.onnx", tmp_path / "replaced" / "model.onnx", value=0.6)
    assert not (tmp_path / "replaced").exists()


@pytest.fixture
def others(sample_data: Path, folder: Path, tmp_path: Path) -> Path:
    """Return a folder with the 8 normal images that the model was not trained on."""
    lines = (folder / "support_set.txt").read_text().splitlines()
    support = {Path(line).name for line in lines if not line.startswith("#")}
    target = tmp_path / "others"
    target.mkdir()
    for image in (sample_data / "train" / "normal").iterdir():
        if image.name not in support:
            shutil.copy(image, target)
    return target


def test_added_images_are_remembered_as_in_a_training_with_all(folder, sample_data, others, tmp_path, caplog) -> None:
    shutil.copy(next(others.iterdir()), others / "zzz a copy.png")
    support = [line for line in (folder / "support_set.txt").read_text().splitlines() if not line.startswith("#")]
    shutil.copy(sample_data / support[0], others / "held.png")
    said = update_model(folder / "model.ckpt", tmp_path / "more.ckpt", others, confirm=True)
    assert "8 normal images were added" in said
    assert "held.png is in the support set already, and is skipped." in caplog.text
    assert "zzz a copy.png is a copy of" in caplog.text
    more, old = joined(tmp_path / "more.ckpt"), joined(folder / "model.ckpt")
    datamodule = sample_datamodule(sample_data, k_shot=16)
    datamodule.setup()
    images = torch.stack([torch.as_tensor(item.image) for item in datamodule.train_data])
    with torch.no_grad():
        features = old.model.vision_encoder(old.pre_processor.transform(images).clamp(0, 1))
        old.model.memory_bank.remember([features], old.image_size, [str(number) for number in range(16)])
        moments = old.model.map_moments_of({}, [features], old.image_size)
    torch.testing.assert_close(more.model.memory_bank.moments, old.model.memory_bank.moments, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(more.model.map_moments, moments, rtol=1e-4, atol=1e-5)
    assert len(more.model.memory_bank.patches) == 16 * 36
    for name, value in old.model.adapters.state_dict().items():
        assert torch.equal(value, more.model.adapters.state_dict()[name])
    assert "| zzz a copy.png |" not in card_of(tmp_path / "more.ckpt", tmp_path)
    assert card_of(tmp_path / "more.ckpt", tmp_path).count(".png | ") == 8


def card_of(checkpoint: Path, folder: Path) -> str:
    path = engine(folder).export(joined(checkpoint), "torch", export_root=folder / checkpoint.stem)
    return path.with_name("MODEL_CARD.md").read_text(encoding="utf-8")


def test_with_the_old_images_both_ways_end_in_the_same_memory(folder, sample_data, others, tmp_path) -> None:
    update_model(folder / "model.ckpt", tmp_path / "alone.ckpt", others, confirm=True)
    update_model(folder / "model.ckpt", tmp_path / "both.ckpt", others, support=sample_data, confirm=True)
    alone, both = joined(tmp_path / "alone.ckpt"), joined(tmp_path / "both.ckpt")
    torch.testing.assert_close(alone.model.memory_bank.moments, both.model.memory_bank.moments, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.model.map_moments, both.model.map_moments, rtol=1e-4, atol=1e-5)
    assert not both.post_processor.image_threshold.isnan()


def test_finetuning_trains_on_from_the_weights(folder, sample_data, others, tmp_path) -> None:
    update_model(
        folder / "model.ckpt", tmp_path / "tuned.ckpt", others, support=sample_data, finetune=True, confirm=True
    )
    content, tuned = read_checkpoint(tmp_path / "tuned.ckpt"), joined(tmp_path / "tuned.ckpt")
    old = joined(folder / "model.ckpt")
    weights, before = (model.model.adapters[0].weight for model in (tuned, old))
    assert 0 < (weights - before).abs().max() < 0.1
    assert len(tuned.model.memory_bank.patches) == 16 * 36
    assert tuned.is_calibrated
    assert content["training_record"]["corrections"][0]["epochs"] == 3
    assert "8 normal images were added to the support set, and the head was trained on:" in card_of(
        tmp_path / "tuned.ckpt", tmp_path
    )


@pytest.mark.slow
def test_the_images_that_a_review_marks_as_normal(folder, sample_data, tmp_path, monkeypatch) -> None:
    table = table_of(folder / "run")
    wrong = [file for file, (_, label) in table.items() if label == "anomalous"][:2]
    marks = dict.fromkeys(wrong, "normal")
    marks[next(file for file in table if file not in wrong)] = "anomalous"
    review, new = write_review_of(folder / "run", 0.6, marks), tmp_path / "new.ckpt"
    found = f"takes 2 of 2 images for anomalous .scores above 0.5.:\n  {re.escape(wrong[0])}: {table[wrong[0]][0]:.3f}"
    with pytest.raises(ValueError, match=found):
        update_model(folder / "model.ckpt", new, review)
    assert not new.exists()
    arguments = ("--ckpt_path", folder / "model.ckpt", "--normal", review, "--output", new, "--confirm")
    added = anomalib("mediclip", "update", *arguments, folder=tmp_path)
    assert added.returncode == 0, added.stderr[-3000:]
    assert "2 normal images were added" in added.stdout
    after = predict(new, sample_data / "test", tmp_path)
    assert all(after[file][0] < table[file][0] for file in wrong)
    again = tmp_path / "again.ckpt"
    with pytest.raises(ValueError, match="has no image to add"):  # of the same run, whose checkpoint is an ancestor
        update_model(new, again, review)


def test_files_that_are_gone_are_named(folder, sample_data, tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    images = tmp_path / "images"
    shutil.copytree(sample_data / "test" / "normal", images)
    table = predict(folder / "model.ckpt", images, run)
    file = next(iter(table))
    review = write_review_of(run, 0.6, {file: "normal"})
    Path(file).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 1 images that .* marks as normal are not there"):
        update_model(folder / "model.ckpt", tmp_path / "new.ckpt", review)
    with pytest.raises(FileNotFoundError, match=r"8 of 8 images of .*support_set\.txt are not in"):
        update_model(folder / "model.ckpt", tmp_path / "new.ckpt", images, support=tmp_path)


def test_a_threshold_set_by_a_person_outlives_an_update(folder, others, tmp_path) -> None:
    set_threshold(folder / "model.ckpt", tmp_path / "set.ckpt", value=0.8)
    update_model(tmp_path / "set.ckpt", tmp_path / "more.ckpt", others, confirm=True)
    chosen, kept = (read_trained(tmp_path / name).model.post_processor for name in ("set.ckpt", "more.ckpt"))
    assert kept.image_threshold == chosen.image_threshold
    assert kept.pixel_threshold != chosen.pixel_threshold
