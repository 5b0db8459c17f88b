# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""``python -m anomalib_mediclip``: configurations and sample in the user's folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from anomalib_mediclip.__main__ import NEXT_COMMAND, copy_starter, main, starter_files
from tests.conftest import REPOSITORY


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_copied_and_the_next_command_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "new folder")])
    copied = content(tmp_path / "new folder")
    for name in ("configs/model/mediclip_lite.yaml", "datasets/README.md", "datasets/sample/train/normal/000.png"):
        assert copied[name] == (REPOSITORY / name).read_bytes()
    assert len([name for name in copied if name.startswith("datasets/sample/") and name.endswith(".png")]) == 76
    output = capsys.readouterr().out
    assert f"copied {len(copied)} files to {tmp_path / 'new folder'}" in output
    assert "configs/benchmark\n" in output
    assert f"cd '{tmp_path / 'new folder'}'\n  {NEXT_COMMAND}\n" in output


def test_current_folder_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main([])
    assert (tmp_path / "configs" / "data" / "sample.yaml").is_file()
    assert "cd " not in capsys.readouterr().out


def test_files_named_by_a_benchmark_are_among_them() -> None:
    from anomalib_mediclip.benchmark.configuration import read_configuration

    names = {REPOSITORY / name for name in starter_files()}
    for path in (REPOSITORY / "configs" / "benchmark").glob("*.yaml"):
        assert {table.resolve() for table in read_configuration(path).published} <= names


def test_second_time_only_what_is_missing_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path)])
    before = content(tmp_path)
    (tmp_path / "configs" / "data" / "sample.yaml").unlink()
    (tmp_path / "configs" / "data" / "own.yaml").touch()
    main([str(tmp_path)])
    assert content(tmp_path) == before | {"configs/data/own.yaml": b""}
    assert f"copied 1 of {len(before)} files" in capsys.readouterr().out


def test_a_changed_file_is_named_and_nothing_is_copied(tmp_path: Path) -> None:
    changed = tmp_path / "configs" / "model" / "mediclip.yaml"
    changed.parent.mkdir(parents=True)
    changed.write_text("mine")
    with pytest.raises(SystemExit, match="choose another folder") as error:
        main([str(tmp_path)])
    assert str(changed) in str(error.value.code)
    assert content(tmp_path) == {"configs/model/mediclip.yaml": b"mine"}


@pytest.mark.parametrize("blocking", ["datasets", "datasets/README.md/", "."])
def test_files_and_folders_in_the_way_are_named(tmp_path: Path, blocking: str) -> None:
    folder = tmp_path / "folder"
    path = folder / blocking
    path.parent.mkdir(parents=True, exist_ok=True)
    if blocking.endswith("/"):
        path.mkdir(parents=True)
    else:
        path.touch()
    with pytest.raises(FileExistsError, match="nothing was copied") as error:
        copy_starter(folder, starter_files())
    assert str(folder / "datasets" / "README.md") in str(error.value)
    assert not (folder / "configs").exists()


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"datasets/README\.md is missing: install anomalib-mediclip again"):
        starter_files(tmp_path)


def test_command_loads_no_torch_and_ends_with_status_1_if_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "configs").touch()
    code = (
        "import runpy, sys; sys.argv[1:] = [sys.argv[1]]\n"
        "try: runpy.run_module('anomalib_mediclip', run_name='__main__')\n"
        "finally: print(*{'torch', 'numpy', 'anomalib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (1, "")
    assert "nothing was copied" in done.stderr


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    output = " ".join(capsys.readouterr().out.split())
    for words in ("datasets/sample", "never overwritten", "current folder", NEXT_COMMAND):
        assert words in output
