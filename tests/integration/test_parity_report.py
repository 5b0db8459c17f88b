# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The parity report, as a user runs it: a tiny random CLIP on the shipped sample set."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from anomalib.engine import Engine

from anomalib_mediclip import MedicalFolder, MediCLIP
from anomalib_mediclip.parity import write_parity_report
from anomalib_mediclip.parity.__main__ import build_parser, main
from tests.conftest import REPOSITORY
from tests.helpers.official import LAYERS, OfficialRun

CONFIG = REPOSITORY / "configs" / "export" / "parity_sample.yaml"
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def checkpoint(official: OfficialRun, sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a run of two epochs."""
    model = MediCLIP(official.encoder, layers=LAYERS, image_size=(56, 56), visualizer=False)
    engine = Engine(max_epochs=2, default_root_dir=tmp_path_factory.mktemp("run"), **QUIET)
    engine.fit(model, datamodule=MedicalFolder(sample_data, k_shot=4))
    return Path(engine.best_model_path)


@pytest.fixture(scope="module")
def report(
    checkpoint: Path, sample_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pd.DataFrame, str, Path]:
    """Every format on eight images: the table, what was printed, and the folder."""
    folder = tmp_path_factory.mktemp("parity")
    few = ("--data.root", sample_data, "--number", 8, "--rounds", 1, "--output", "out")
    command = [sys.executable, "-m", "anomalib_mediclip.parity", "--config", CONFIG, "--ckpt_path", checkpoint]
    result = subprocess.run([*map(str, [*command, *few])], capture_output=True, text=True, cwd=folder, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    table = pd.read_csv(folder / "out" / "parity.csv")
    return table, result.stdout, folder


def test_every_format_is_a_row_with_all_its_figures(report) -> None:
    table, _, _ = report
    assert list(dict.fromkeys(table["format"])) == [
        "torch",
        "onnx",
        "openvino",
        "openvino_fp16",
        "openvino_int8",
        "openvino_int8_ptq",
    ]
    assert not table.duplicated(["format", "precision"]).any()
    assert table["error"].isna().all()
    assert not table.drop(columns="error").isna().any(axis=None)
    assert (table[["size_mb", "latency_ms", "throughput"]] > 0).all(axis=None)


def test_float32_formats_keep_their_promise_and_files_shrink(report) -> None:
    table = report[0].set_index(["format", "precision"])
    for name in ("torch", "onnx", "openvino"):
        row = table.loc[(name, "f32")]
        assert row["map_max"] < 1e-3, name
        assert row["score_max"] < 1e-3, name
        assert row["flipped_labels"] == 0, name
    sizes = table["size_mb"].groupby("format").first()
    assert sizes["openvino_int8"] < sizes["openvino_fp16"] < sizes["openvino"]


def test_it_is_printed_and_written_with_a_bar_to_watch(report) -> None:
    _, printed, folder = report
    assert "4 normal, 4 anomalous" in printed
    assert (folder / "out" / "parity.md").read_text() in printed
    assert (folder / "out" / "exports" / "onnx" / "weights" / "onnx" / "model.onnx").is_file()
    assert [path.name for path in folder.iterdir()] == ["out"]  # nothing is left in the working directory


def test_a_format_that_fails_is_a_row_and_the_others_go_on(checkpoint, sample_data, tmp_path, monkeypatch) -> None:
    def fail(*arguments: object, **options: object) -> Path:
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(MediCLIP, "to_onnx", fail)
    path, failed = write_parity_report(
        checkpoint, images=sample_data / "test", formats=["onnx", "torch"], number=2, rounds=1, output=tmp_path
    )
    assert failed == ["onnx f32"]
    assert "RuntimeError: no such operator" in path.read_text()
    table = pd.read_csv(tmp_path / "parity.csv", index_col="format")
    assert table.loc["torch", "map_max"].notna().all()


def test_a_run_that_is_killed_leaves_what_it_had(checkpoint, sample_data, tmp_path, monkeypatch) -> None:
    def kill(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anomalib_mediclip.parity.formats.ExportedModel", kill)
    with pytest.raises(KeyboardInterrupt):
        write_parity_report(
            checkpoint, images=sample_data / "test", formats=["torch", "onnx"], number=2, rounds=1, output=tmp_path
        )
    table = pd.read_csv(tmp_path / "parity.csv")
    assert table["map_max"].notna().tolist() == [True, True, False]
    assert table["size_mb"].notna().all()


def test_a_failure_ends_with_a_status_that_scripts_see(checkpoint, sample_data, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delattr("onnxruntime.InferenceSession")
    options = ["--images", sample_data / "test" / "normal", "--formats", "[onnx]", "--number", 2, "--rounds", 1]
    with pytest.raises(SystemExit, match="failed: onnx f32"):
        main_with(monkeypatch, "--ckpt_path", checkpoint, *options, "--output", tmp_path)
    assert "AttributeError" in capsys.readouterr().out


def main_with(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["parity", *map(str, arguments)])
    main()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ckpt_path", "none.ckpt"), "There is no checkpoint none.ckpt"),
        (("--ckpt_path", __file__), "is not a checkpoint of a model of anomalib-mediclip"),
        (("--ckpt_path", "none.ckpt", "--rounds", 0), "there must be at least one"),
        (("--ckpt_path", "none.ckpt", "--formats", "[tflite]"), "tflite"),
    ],
)
def test_arguments_of_no_use_end_with_a_message(options, message, sample_data, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main_with(monkeypatch, "--config", CONFIG, "--data.root", sample_data, *options)
    assert message in capsys.readouterr().err


def test_quantisation_that_needs_a_support_set_says_so(checkpoint, sample_data, tmp_path) -> None:
    with pytest.raises(ValueError, match="openvino_int8_ptq is calibrated on a support set: give --data"):
        write_parity_report(checkpoint, images=sample_data / "test", output=tmp_path)


def test_large_originals_drift_no_more_than_promised(checkpoint, sample_data, tmp_path) -> None:
    from torchvision.transforms.v2.functional import resize
    from torchvision.utils import save_image

    from anomalib_mediclip.io import read_image

    (tmp_path / "large").mkdir()
    for path in sorted((sample_data / "test" / "abnormal").glob("*.png"))[:3]:
        save_image(resize(read_image(path), [700, 900]) + 0.1 * torch.rand(3, 700, 900), tmp_path / "large" / path.name)
    write_parity_report(
        checkpoint, images=tmp_path / "large", formats=["onnx", "openvino"], rounds=1, output=tmp_path / "out"
    )
    table = pd.read_csv(tmp_path / "out" / "parity.csv").query("precision == 'f32'")
    assert (table["original_score_max"] < 0.01).all()


def test_shipped_configurations_name_what_exists() -> None:
    for path in sorted(CONFIG.parent.glob("*.yaml")):
        arguments = build_parser().parse_args(["--config", str(path), "--ckpt_path", "model.ckpt"])
        assert arguments.data.class_path.startswith("anomalib_mediclip."), path
        assert yaml.safe_load(path.read_text())["output"].startswith("results/parity/")
