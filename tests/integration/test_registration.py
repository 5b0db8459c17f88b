# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Effects of installing the plugin on a Python environment, each case in an interpreter of its own."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

RESOLVES = """
from anomalib.models import get_model
from anomalib.data import get_datamodule
import sys
assert "anomalib_mediclip.models" in sys.modules
model = get_model("mediclip", encoder="timm/resnet18", weights=None, layers=[2, 3], prompt="prototype")
named = get_model({"class_path": "MediCLIP", "init_args": {
    "encoder": "timm/resnet18", "weights": None, "layers": [2, 3], "prompt": "prototype"}})
full = get_model({"class_path": "anomalib_mediclip.MediCLIP", "init_args": {
    "encoder": "timm/resnet18", "weights": None, "layers": [2, 3], "prompt": "prototype"}})
data = get_datamodule({"class_path": "BUSI", "init_args": {"root": "nowhere"}})
print(type(model).__name__, type(named).__name__, type(full).__name__, type(data).__name__)
"""


def python(code: str, executable: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=Path.home(),  # not the repository: the plugin must be found because it is installed
        check=False,
    )


def test_names_resolve_without_importing_the_plugin() -> None:
    result = python(RESOLVES)
    assert result.stdout.split() == ["MediCLIP", "MediCLIP", "MediCLIP", "BUSI"], result.stderr


@pytest.mark.parametrize(
    "first", ["anomalib.data", "anomalib.models", "anomalib.engine", "anomalib.cli", "anomalib_mediclip.models"]
)
def test_any_order_of_imports_registers(first: str) -> None:
    code = f"""
import {first}
import anomalib.data, anomalib.models
from anomalib.engine import Engine
print(anomalib.models.MediCLIP.__name__, anomalib.data.BrainMRI.__name__)
print(Engine._setup_trainer.wrapped_by_anomalib_mediclip)
"""
    result = python(code)
    assert result.stdout.split() == ["MediCLIP", "BrainMRI", "True"], result.stderr
    assert "RuntimeWarning" not in result.stderr


def test_interpreters_without_anomalib_import_nothing_heavy() -> None:
    code = (
        "import sys; print('anomalib_mediclip.host.autoload' in sys.modules, *[m for m in sys.modules if m in {names}])"
    )
    result = python(code.replace("{names}", "('torch', 'numpy', 'anomalib', 'typing', 'importlib.util')"))
    before = python("import sys; print(*[m for m in sys.modules if m in ('typing', 'importlib.util')])", PYTHONPATH="")
    assert result.stdout.split()[0] == "True"
    assert set(result.stdout.split()[1:]) <= set(before.stdout.split())


def test_no_warning_of_anomalib_is_hidden() -> None:
    code = "import warnings; warnings.simplefilter('always'); import anomalib.models, anomalib.data, anomalib.engine"
    shown, expected = python(code), python(code, ANOMALIB_MEDICLIP_AUTOLOAD="0")
    assert "FutureWarning" in expected.stderr
    assert shown.stderr.count("FutureWarning:") == expected.stderr.count("FutureWarning:")


def test_can_be_switched_off_and_full_class_path_still_works() -> None:
    off = {"ANOMALIB_MEDICLIP_AUTOLOAD": "0"}
    result = python("import anomalib.models; print(hasattr(anomalib.models, 'MediCLIP'))", **off)
    assert result.stdout.strip() == "False"
    code = "from anomalib_mediclip import MediCLIP; import anomalib.models; print(anomalib.models.MediCLIP is MediCLIP)"
    assert python(code, **off).stdout.strip() == "True"


def test_a_broken_plugin_warns_and_leaves_anomalib_alone() -> None:
    code = (
        "import sys; sys.modules['anomalib_mediclip.models'] = None; import anomalib.models; "
        "print(anomalib.models.Padim.__name__)"
    )
    result = python(code)
    assert result.stdout.strip() == "Padim"
    assert "anomalib-mediclip could not register itself with anomalib.models" in result.stderr
    assert "ANOMALIB_MEDICLIP_AUTOLOAD=0" in result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_package_and_the_start_up_line_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "anomalib_mediclip_autoload.pth" in names
    assert "anomalib_mediclip/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "anomalib_mediclip",
        "anomalib_mediclip_autoload.pth",
    }


@pytest.fixture
def fresh(wheel: Path, tmp_path: Path) -> str:
    """Return the interpreter of a new environment in which the wheel is installed."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    executable = str(environment / "bin" / "python")
    (packages,) = (environment / "lib").glob("python*/site-packages")
    # the dependencies are those of this environment; its own .pth files, the editable plugin's too, are not processed
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    pip(executable, "install", "--no-deps", "--no-index", str(wheel))
    return executable


def pip(executable: str, *arguments: str) -> None:
    command = [executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_wheel_in_a_fresh_environment_resolves_and_uninstalls(fresh: str, tmp_path: Path) -> None:
    located = python("import anomalib_mediclip; print(anomalib_mediclip.__file__)", fresh, PYTHONPATH="")
    assert located.stdout.startswith(str(tmp_path / "environment")), located.stderr
    result = python(RESOLVES, fresh, PYTHONPATH="")
    assert result.stdout.split() == ["MediCLIP", "MediCLIP", "MediCLIP", "BUSI"], result.stderr
    pip(fresh, "uninstall", "--yes", "anomalib-mediclip")
    assert not list((tmp_path / "environment").rglob("anomalib_mediclip*"))


PARSES = """
import contextlib, io
from pathlib import Path
from anomalib.cli.cli import AnomalibCLI
from anomalib_mediclip.benchmark.configuration import read_configuration
from anomalib_mediclip.parity.__main__ import build_parser

def parse(model, data):
    output = io.StringIO()
    files = ["--config", f"configs/model/{model}.yaml", "--data", f"configs/data/{data}.yaml"]
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        AnomalibCLI(args=["train", *files, "--print_config"])
    assert "class_path" in output.getvalue(), (model, data)

models, data, exports, benchmarks = (
    sorted(Path("configs", folder).glob("*.yaml")) for folder in ("model", "data", "export", "benchmark")
)
for path in models:
    parse(path.stem, "sample")
for path in data:
    parse("mediclip_lite", path.stem)
for path in exports:
    build_parser().parse_args(["--config", str(path), "--ckpt_path", "model.ckpt"])
for path in benchmarks:
    read_configuration(path)
print(len(models), len(data), len(exports), len(benchmarks))
"""


@pytest.mark.slow
def test_wheel_brings_configurations_and_sample_to_an_empty_folder(fresh: str, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": ""}
        command = [fresh, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    copied = run("-m", "anomalib_mediclip")
    next_command = "anomalib train --config configs/model/mediclip_lite.yaml --data configs/data/sample.yaml"
    assert copied.endswith(f"  {next_command}\n")
    anomalib = Path(sys.executable).with_name("anomalib")
    options = ["--trainer.max_epochs", 2, "--model.visualizer", "false"]
    run(anomalib, *next_command.split()[1:], *options)
    assert (folder / "results" / "MediCLIP" / "sample" / "latest" / "weights" / "lightning" / "model.ckpt").is_file()
    numbers = [
        len(list((REPOSITORY / "configs" / kind).iterdir())) for kind in ("model", "data", "export", "benchmark")
    ]
    assert run("-c", PARSES).split() == list(map(str, numbers))
