# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What installing the plugin does to a Python environment, each case in an interpreter of its own."""

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
print(anomalib.models.MediCLIP.__name__, anomalib.data.BrainMRI.__name__, Engine._setup_trainer.respects_defaults)
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


def test_wheel_in_a_fresh_environment_resolves_and_uninstalls(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    executable = str(environment / "bin" / "python")
    (packages,) = (environment / "lib").glob("python*/site-packages")
    # the dependencies are those of this environment; its own .pth files, the editable plugin's too, are not processed
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    pip = [executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    located = python("import anomalib_mediclip; print(anomalib_mediclip.__file__)", executable)
    assert located.stdout.startswith(str(environment)), located.stderr
    result = python(RESOLVES, executable)
    assert result.stdout.split() == ["MediCLIP", "MediCLIP", "MediCLIP", "BUSI"], result.stderr
    subprocess.run([*pip, "uninstall", "--yes", "anomalib-mediclip"], check=True, capture_output=True)
    assert not list(packages.glob("anomalib_mediclip*"))
