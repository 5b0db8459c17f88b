# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Prediction of folders, with a tiny random model: complete, one row and one picture an image, nothing kept."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from anomalib.cli import AnomalibCLI
from anomalib.engine import Engine
from lightning import Trainer
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.io import read_image
from anomalib_mediclip.prediction.folder import PredictionDataset, prediction_loader
from tests.conftest import REPOSITORY

MODEL = {"encoder": "timm/resnet18", "layers": [2, 3], "prompt": "prototype", "image_size": (64, 64)}
ARGUMENTS = [
    *("--model", "MediCLIP", "--model.encoder", "timm/resnet18", "--model.weights", "null", "--model.layers", "[2, 3]"),
    *("--model.prompt", "prototype", "--model.image_size", "[64, 64]", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    model = MediCLIP(**MODEL, weights=None, visualizer=False)
    engine = Engine(default_root_dir=folder, accelerator="cpu", max_epochs=1, enable_progress_bar=False)
    engine.fit(model, datamodule=MedicalFolder(sample_data, k_shot=2))
    engine.trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """Return a folder of 70 images, enough for worker processes, with equal names in nested folders."""
    root = tmp_path_factory.mktemp("predict") / "clinic"
    sources = sorted((sample_data / "test").rglob("*.png"))
    for patient in ("a", "b"):
        folder = root / patient / "study"
        folder.mkdir(parents=True)
        for index in range(34):
            shutil.copy(sources[(index + 3 * (patient == "b")) % len(sources)], folder / f"{index}.png")
    ramp = np.linspace(1000, 4095, 80 * 60).reshape(80, 60).astype(np.uint16)
    Image.fromarray(ramp).save(root / "deep.png")
    Image.new("RGB", (40, 90), (90, 20, 20)).save(root / "colour.jpg")
    return root


def predict(folder: Path, data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Engine:
    """Run the command in this process, and return what it worked with."""
    monkeypatch.chdir(folder)
    common = ["--data", str(data), "--ckpt_path", str(checkpoint), "--trainer.enable_progress_bar", "false"]
    return AnomalibCLI(args=["predict", *ARGUMENTS, *common, *arguments]).engine


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("anomalib")), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )


def table_of(folder: Path) -> pd.DataFrame:
    (path,) = folder.rglob("*.csv")
    assert path.name == "predictions.csv"
    return pd.read_csv(path)


def test_every_image_has_a_row_and_a_picture_and_nothing_is_kept(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = predict(tmp_path, images, checkpoint, monkeypatch)
    assert engine.trainer.predict_loop.predictions == []
    loader = engine.trainer.predict_dataloaders
    assert loader.num_workers == min(4, os.cpu_count() or 1)
    table = table_of(tmp_path)
    assert [Path(name) for name in table["file"]] == PredictionDataset(images, (64, 64)).paths
    pictures = [path.relative_to(tmp_path / "results" / "MediCLIP" / "v0") for path in tmp_path.rglob("*.png")]
    expected = [Path(name).relative_to(images.parent).as_posix() for name in table["file"]]
    assert sorted(path.as_posix() for path in pictures) == sorted(
        f"images/{name}" if name.endswith(".png") else f"images/{name}.png" for name in expected
    )


def test_scores_are_those_of_the_engine_which_returns_every_batch_whole(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(tmp_path, images, checkpoint, monkeypatch, "--model.visualizer", "false")
    table = table_of(tmp_path).set_index("file")
    assert not list(tmp_path.rglob("images"))
    model = MediCLIP.load_from_checkpoint(checkpoint)
    engine = Engine(default_root_dir=tmp_path / "engine", accelerator="cpu", enable_progress_bar=False)
    batches = engine.predict(model, data_path=images)
    assert len(batches) == len(table) == 70
    for batch in batches:
        assert batch.image.shape == (1, 3, 64, 64)
        assert batch.anomaly_map.shape[-2:] == (64, 64)
        row = table.loc[batch.image_path[0]]
        assert row["score"] == pytest.approx(batch.pred_score.item(), abs=1e-5)
        assert row["label"] == ("anomalous" if batch.pred_label.item() else "normal")
        assert row["threshold"] == model.post_processor.normalized_image_threshold.item() == 0.5


def test_every_run_has_a_folder_of_its_own_and_says_where_it_is(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    results = tmp_path / "results" / "MediCLIP"
    for version, data in (("v0", images / "deep.png"), ("v1", images / "colour.jpg")):
        predict(tmp_path, data, checkpoint, monkeypatch)
        where = results / version
        assert f"images to {where / 'predictions.csv'}, and their pictures to {where / 'images'}" in caplog.text
        assert (results / "latest").resolve() == where
    for version, name in (("v0", "deep.png"), ("v1", "colour.jpg.png")):
        (row,) = pd.read_csv(results / version / "predictions.csv")["file"]
        assert name.startswith(Path(row).name)
        assert [path.name for path in (results / version).rglob("*.png")] == [name]
        assert (results / version / "config.yaml").is_file()


def test_one_engine_gives_every_prediction_a_folder_of_its_own(tmp_path: Path, images: Path, sample_data: Path) -> None:
    model = MediCLIP(**MODEL, weights=None)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, enable_progress_bar=False)
    datamodule = MedicalFolder(sample_data, k_shot=2)
    engine.train(model, datamodule=datamodule)
    for name in ("deep.png", "colour.jpg"):
        engine.predict(model, data_path=images / name)
    engine.predict(model, datamodule=datamodule)
    tables = {str(path.parent.relative_to(tmp_path / "MediCLIP")): path for path in tmp_path.rglob("predictions.csv")}
    assert {name: len(pd.read_csv(path)) for name, path in tables.items()} == {
        "v0": 1,
        "v1": 1,
        "MedicalFolder/v0": 40,  # of its test
        "MedicalFolder/predict/v0": 40,
    }
    training = tmp_path / "MediCLIP" / "MedicalFolder" / "latest"
    assert training.resolve().name == "v0"
    assert (training / "weights" / "lightning" / "model.ckpt").is_file()
    assert len(list((training / "images").rglob("*.png"))) == 40


def test_no_table_is_ever_replaced(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    model = MediCLIP.load_from_checkpoint(checkpoint)
    loader = model.image_loader(images / "deep.png")
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.predict(model, loader)
    before = (tmp_path / "predictions.csv").read_bytes()
    with pytest.raises(FileExistsError, match="holds the predictions of another run"):
        trainer.predict(model, loader)
    assert (tmp_path / "predictions.csv").read_bytes() == before


def test_own_results_in_the_predicted_folder_are_left_out_unless_they_are_named(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(images / "deep.png", tmp_path)
    other = tmp_path / "results" / "SimpleNet" / "sample" / "v0" / "images"
    other.mkdir(parents=True)
    shutil.copy(images / "deep.png", other)
    results = tmp_path / "results" / "MediCLIP"
    for version in ("v0", "v1", "v2"):
        predict(tmp_path, Path(), checkpoint, monkeypatch)
        assert list(pd.read_csv(results / version / "predictions.csv")["file"]) == ["deep.png"]
    predict(tmp_path, Path("results/MediCLIP/v1/images"), checkpoint, monkeypatch)
    (named,) = pd.read_csv(results / "v3" / "predictions.csv")["file"]
    assert named == f"results/MediCLIP/v1/images/{tmp_path.name}/deep.png"
    (tmp_path / "empty").mkdir()
    (tmp_path / "results").rename(tmp_path / "empty" / "results")
    with pytest.raises(ValueError, match=r"no images in empty but results of former runs in .*results"):
        predict(tmp_path, Path("empty"), checkpoint, monkeypatch, "--default_root_dir", "empty/results")


def test_images_beside_the_results_are_predicted(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(images / "a", tmp_path / "study" / "a")
    for version in ("v0", "v1"):
        predict(tmp_path, Path("study"), checkpoint, monkeypatch, "--default_root_dir", "study")
        assert len(pd.read_csv(tmp_path / "study" / "MediCLIP" / version / "predictions.csv")) == 34


ODD_NAMES = (
    b"caf\xe9.png",
    b"two\nlines.png",
    b"carriage\rreturn.png",
    b"a.jpg",
    b"a.jpg.png",
    b'quote"comma,.png',
    "\u4e2d\u6587 \u0391\u03b2.png".encode(),
    b"n" * 251 + b".png",
    b"n" * 251 + b".jpg",
)


def test_every_name_has_a_row_and_a_picture(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".hidden"
    (folder / "folder.png").mkdir(parents=True)
    for name in (*ODD_NAMES, b"folder.jpg", b"folder.png/1.png"):
        shutil.copy(images / "deep.png", os.fsencode(folder) + b"/" + name)
    predict(tmp_path, folder, checkpoint, monkeypatch)
    table = table_of(tmp_path)
    assert len(table) == table["file"].nunique() == len(ODD_NAMES) + 2
    assert f"{folder}/two\nlines.png" in set(table["file"])
    assert f"{folder}/caf\\udce9.png" in set(table["file"])
    written = tmp_path / "results" / "MediCLIP" / "v0" / "images"
    pictures = [path.relative_to(written) for path in written.rglob("*.png") if path.is_file()]
    assert len(pictures) == len(table)
    assert not [part for path in pictures for part in path.parts if part.startswith(".")]


def test_pictures_are_named_after_links_and_not_what_they_lead_to(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patient in ("p1", "p2"):
        (tmp_path / "links" / patient).mkdir(parents=True)
        (tmp_path / "links" / patient / "view.png").symlink_to(images / "deep.png")
    (tmp_path / "study").symlink_to(tmp_path / "links")
    predict(tmp_path, Path("study"), checkpoint, monkeypatch)
    written = tmp_path / "results" / "MediCLIP" / "v0" / "images"
    names = sorted(path.relative_to(written).as_posix() for path in written.rglob("*.png"))
    assert names == ["study/p1/view.png", "study/p2/view.png"]


def test_a_folder_named_like_a_data_module_can_be_predicted(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "BUSI").mkdir()
    shutil.copy(images / "deep.png", tmp_path / "BUSI")
    monkeypatch.chdir(tmp_path)
    options = [*ARGUMENTS, "--ckpt_path", str(checkpoint)]
    AnomalibCLI(args=["predict", *options, "--data", "./BUSI"])
    assert len(table_of(tmp_path)) == 1
    assert "data module" not in caplog.text
    with pytest.raises(FileNotFoundError, match="Dataset_BUSI_with_GT"):
        AnomalibCLI(args=["predict", *options, "--data", "BUSI"])
    assert "To predict the folder BUSI here, give --data ./BUSI" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.png"], "There is no file or folder nowhere.png"),
        (["--data.k_shot", "4", "--data", "MedicalFolder"], "give --data MedicalFolder first, then its options"),
    ],
)
def test_wrong_arguments_end_with_a_sentence_and_leave_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        AnomalibCLI(args=["predict", *ARGUMENTS, *arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed) < 300
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_many_unreadable_files_do_not_fill_the_screen(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index in range(200):
        (data / f"{index}.png").write_bytes(b"no image")
    shutil.copy(images / "deep.png", data)
    result = command(tmp_path, "predict", *ARGUMENTS, "--data", data, "--ckpt_path", checkpoint)
    printed = result.stdout + result.stderr
    assert result.returncode == 1
    assert printed.count("not an image of a supported format, or its header is damaged") == 5
    assert printed.count("195 more files could not be read.") == 1
    assert result.stderr.splitlines()[-1].startswith("error: 200 of 201 images could not be read: ")
    assert "Traceback" not in printed
    assert printed.count("Wrote the predictions of 201 images") == 1
    table = table_of(tmp_path)
    assert sum(table["label"] == "unreadable") == sum(table["reason"].notna()) == 200


@pytest.mark.slow
def test_a_wrong_folder_of_data_ends_with_a_sentence(tmp_path: Path) -> None:
    result = command(tmp_path, "train", *ARGUMENTS, "--data", "MedicalFolder", "--data.root", "nowhere")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: no folder nowhere")
    assert "Traceback" not in result.stdout + result.stderr


def test_predictions_are_kept_when_asked_for(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model.visualizer", "false", "--return_predictions", "true")
    engine = predict(tmp_path, images / "a", checkpoint, monkeypatch, *options)
    assert sum(len(batch.pred_score) for batch in engine.trainer.predict_loop.predictions) == 34


def test_unreadable_files_are_named_and_cost_no_other_prediction(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("0.png", "1.png", "3.png"):
        shutil.copy(images / "a" / "study" / name, damaged)
    (damaged / "2.png").write_bytes((damaged / "1.png").read_bytes()[:600])
    (damaged / "4.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 5 images could not be read: .*2\.png, .*4\.png\. All others are pred"):
        predict(tmp_path, damaged, checkpoint, monkeypatch)
    assert "2.png: truncated or damaged" in caplog.text
    assert "4.png: the file is empty" in caplog.text
    table = table_of(tmp_path / "results")
    assert list(table["label"] == "unreadable") == [False, False, True, False, True]
    assert list(table["score"].isna()) == [False, False, True, False, True]
    assert {path.name for path in (tmp_path / "results").rglob("*.png")} == {"0.png", "1.png", "3.png"}


def test_the_engine_reads_past_unreadable_files_and_own_results(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    shutil.copy(images / "deep.png", tmp_path)
    (tmp_path / "broken.png").write_bytes(b"")
    engine = Engine(default_root_dir=tmp_path / "results", accelerator="cpu", enable_progress_bar=False)
    model = MediCLIP(**MODEL, weights=None)
    for version in ("v0", "v1"):
        with pytest.raises(ValueError, match=r"1 of 2 images could not be read: .*broken\.png"):
            engine.predict(model, data_path=tmp_path)
        table = pd.read_csv(tmp_path / "results" / "MediCLIP" / version / "predictions.csv")
        assert list(table["label"] == "unreadable") == [True, False]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged copy of a file: cut, with flipped bits, or with a wrong header."""
    damaged = bytearray(content)
    kind = rng.integers(3)
    if kind == 0:
        return bytes(damaged[: rng.integers(len(damaged))])
    for position in rng.integers(0, len(damaged) if kind == 1 else min(200, len(damaged)), rng.integers(1, 12)):
        damaged[position] ^= 1 << rng.integers(8)
    return bytes(damaged)


@pytest.mark.slow
def test_2000_damaged_files_cost_a_row_each_and_nothing_else(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sources, folder, rng = tmp_path / "sources", tmp_path / "damaged", np.random.default_rng(0)
    sources.mkdir()
    folder.mkdir()
    grey = rng.integers(0, 255, (40, 50), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tif", "a.jp2", "a.avif", "a.ppm"):
        Image.fromarray(np.dstack([grey] * 3)).save(sources / name)
    Image.fromarray(grey.astype(np.uint16) * 100).save(sources / "deep.png")
    tifffile.imwrite(sources / "deep.tif", grey.astype(np.uint16) * 100, compression="zlib")
    tifffile.imwrite(sources / "float.tif", grey.astype(np.float32))
    files = sorted(sources.iterdir())
    for index in range(2000):
        source = files[index % len(files)]
        (folder / f"{index}{source.suffix}").write_bytes(mutated(source.read_bytes(), rng))
    options = ("--model.visualizer", "false", "--max_megapixels", "1")
    with pytest.raises(ValueError, match=r"\d+ of 2000 images could not be read"):
        predict(tmp_path, folder, checkpoint, monkeypatch, *options)
    table = table_of(tmp_path / "results")
    assert sorted(Path(name).name for name in table["file"]) == sorted(path.name for path in folder.iterdir())
    unreadable = table["label"] == "unreadable"
    assert 500 < unreadable.sum() < 1900
    assert table["reason"][unreadable].str.contains("cannot read").all()
    assert table["score"][~unreadable].between(0, 1).all()


@pytest.mark.slow
def test_two_processes_share_the_work_and_leave_one_table(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(images / "a" / "study", odd)
    (odd / "7.png").unlink()  # 33 images: an even split would have to repeat one
    processes = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    result = command(tmp_path, "predict", *ARGUMENTS, *processes, "--data", odd, "--ckpt_path", checkpoint)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [path.name for path in sorted((tmp_path / "results" / "MediCLIP").iterdir())] == ["latest", "v0"]
    assert [Path(name) for name in table_of(tmp_path)["file"]] == PredictionDataset(odd, (64, 64)).paths
    pictures = [path.name for path in (tmp_path / "results").rglob("*.png")]
    assert sorted(pictures) == sorted(path.name for path in odd.iterdir())
    run = tmp_path / "results" / "MediCLIP" / "v0"
    images_of_page = json.loads((run / "index.html").read_text().split('id="images">')[1].split("</script>")[0])
    assert [image[0] for image in images_of_page] == list(table_of(tmp_path)["file"])
    assert all((run / f"{image[4]}_thumbnail.jpg").is_file() for image in images_of_page)


def test_images_are_batched_only_if_resizing_is_all_that_is_done_to_them(images: Path) -> None:
    resize = Resize((64, 64), antialias=True)
    batch = next(iter(prediction_loader(images / "a", (64, 64), resize)))
    assert batch.image.shape == (8, 3, 64, 64)
    assert torch.equal(batch.image[0], resize(read_image(batch.image_path[0])))
    assert torch.equal(resize(batch.image), batch.image)  # what the pre-processor does again
    for transform in (Compose([CenterCrop(50), resize]), Resize(64), None):
        alone = next(iter(prediction_loader(images / "a", (64, 64), transform)))
        assert torch.equal(alone.image, read_image(alone.image_path[0])[None])


def test_a_model_without_data_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="nothing to predict"):
        MediCLIP(**MODEL, weights=None).predict_dataloader()
