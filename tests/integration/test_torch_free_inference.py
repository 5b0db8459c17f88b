# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The example of inference without torch, in an environment that has no torch."""

import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
import tifffile
from anomalib.engine import Engine
from PIL import Image

from anomalib_mediclip import MediCLIP
from anomalib_mediclip.io import read_image
from tests.conftest import REPOSITORY
from tests.helpers.lite import as_trained, lite_model

EXAMPLE = REPOSITORY / "examples" / "torch_free_inference.py"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment with what the example needs and nothing else."""
    folder = tmp_path_factory.mktemp("torch_free")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    interpreter = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    packages = [f"openvino=={openvino.__version__.split('-')[0]}", "numpy", "pillow"]
    install = [interpreter, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *packages]
    result = subprocess.run(install, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"the package index gives no openvino: {result.stderr.strip().splitlines()[-1]}")
    return interpreter


@pytest.fixture(scope="module")
def model() -> MediCLIP:
    return lite_model()


@pytest.fixture(scope="module", params=["openvino", "onnx"])
def exported(request, model: MediCLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported file."""
    return Engine(logger=False).export(model, request.param, export_root=tmp_path_factory.mktemp("export"))


def run(python: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-I", str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def write_special_images(folder: Path) -> None:
    """Write images of all the kinds that a reader easily gets wrong."""
    grey = np.tile(np.arange(40, 200, dtype=np.uint8), (100, 1))
    grey[10:40, 10:40] = 250
    deep, exif = grey.astype(np.uint16) * 16, Image.Exif()
    exif[274] = 6
    Image.fromarray(grey).save(folder / "turned.png", exif=exif)
    Image.fromarray(grey).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(grey).save(folder / "turned.tif", exif=exif)
    Image.fromarray(deep).save(folder / "deep.png")
    deep[3, 4] = 65535
    Image.fromarray(deep).save(folder / "hot.png")
    Image.fromarray(np.full_like(deep, 700)).save(folder / "constant.png")
    Image.fromarray(np.dstack([grey, grey, grey, grey * 0])).save(folder / "clear.png")
    Image.fromarray(np.dstack([grey, grey, grey, grey])).save(folder / "transparent.png")
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    Image.fromarray(grey > 100).save(folder / "bits.png")


def test_it_reads_as_the_package_does(tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLE))
    write_special_images(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_allclose(example["read"](path)[0], read_image(path), atol=1e-6, err_msg=path.name)


def test_it_refuses_what_it_would_read_otherwise(tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLE))
    tifffile.imwrite(tmp_path / "deep.tif", np.eye(4, dtype=np.uint16))
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((4, 4, 3), dtype=np.uint16))
    for name in ("deep.tif", "deep.png"):
        with pytest.raises(ValueError, match="convert deep TIFF and 16-bit colour"):
            example["read"](tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colour", "grey", "deep", "large"])
def test_its_map_is_that_of_torch(python, exported, model, sample_data, tmp_path, kind: str) -> None:
    without = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in without.stderr
    image_file = write_image(sample_data, tmp_path / "image.png", kind)
    result = run(python, exported, image_file, "heat.png", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    image = read_image(image_file)[None]
    expected = as_trained(model, image)
    np.testing.assert_allclose(np.load(tmp_path / "heat.png.npy"), expected.anomaly_map.numpy(), atol=1e-3)
    _, score, label, *_ = result.stdout.replace(",", "").replace(";", "").split()
    assert float(score) == pytest.approx(expected.pred_score.item(), abs=1e-3)
    assert label == ("anomalous" if expected.pred_label.item() else "normal")
    with Image.open(tmp_path / "heat.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", image.shape[:1:-1])
        assert len(np.unique(np.asarray(picture))) > 50


def write_image(sample_data: Path, target: Path, kind: str) -> Path:
    """Write a test image of a kind."""
    with Image.open(sample_data / "test" / "abnormal" / "000.png") as image:
        grey = image.convert("L")
    if kind == "colour":
        grey.convert("RGB").save(target)
    elif kind == "grey":
        grey.save(target)
    elif kind == "deep":
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 16).save(target)
    else:
        grey.resize((900, 1100)).save(target)
    return target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_file", "image_file", "message"),
    [
        ("none.xml", "image.png", 'Could not open the file: "none.xml"'),
        ("note.txt", "image.png", 'Unable to read the model: "note.txt"'),
        ("{exported}", "note.txt", "cannot identify image file"),
        ("{exported}", "none.png", "No such file or directory: "),
    ],
)
def test_a_wrong_file_is_named(python, exported, sample_data, tmp_path, model_file, image_file, message) -> None:
    (tmp_path / "note.txt").write_text("not an image")
    write_image(sample_data, tmp_path / "image.png", "grey")
    arguments = (str(name).format(exported=exported) for name in (model_file, image_file, "heat.png"))
    result = run(python, *arguments, folder=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "heat.png").exists()
