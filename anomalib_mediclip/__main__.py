# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Command line of the package: ``python -m anomalib_mediclip`` copies the configurations and the sample data set.

The documented commands name files such as ``configs/model/mediclip_lite.yaml``. A wheel holds these files in
``anomalib_mediclip/starter``; a clone has them in its root.
"""

import argparse
import shlex
import shutil
import sys
from filecmp import cmp
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# the published figures are here because configs/benchmark names them
CONTENT = ("configs", "datasets/README.md", "datasets/sample", "docs/results/paper_table?.csv")
NEXT_COMMAND = "anomalib train --config configs/model/mediclip_lite.yaml --data configs/data/sample.yaml"


def starter_files(source: Path | None = None) -> dict[Path, Path]:
    """Return every file that is copied.

    Args:
        source (Path | None, optional): Folder that holds ``configs`` and ``datasets``. Defaults to ``None``: the
            ``starter`` of the wheel, or the root of the clone.

    Returns:
        dict[Path, Path]: Path relative to the target folder -> file.

    Raises:
        FileNotFoundError: If a part of ``CONTENT`` is missing.
    """
    if source is None:
        source = PACKAGE / "starter" if (PACKAGE / "starter").is_dir() else PACKAGE.parent
    files: dict[Path, Path] = {}
    for pattern in CONTENT:
        found = [file for path in source.glob(pattern) for file in (path, *path.rglob("*")) if file.is_file()]
        if not found:
            msg = f"{source / pattern} is missing: install anomalib-mediclip again"
            raise FileNotFoundError(msg)
        files |= {file.relative_to(source): file for file in sorted(found)}
    return files


def copy_starter(folder: Path, files: dict[Path, Path]) -> list[Path]:
    """Copy files into a folder; those that are there already and equal are left.

    Args:
        folder (Path): Target, created if it does not exist.
        files (dict[Path, Path]): Path relative to ``folder`` -> file.

    Returns:
        list[Path]: The files that were copied, relative to ``folder``.

    Raises:
        FileExistsError: If something else already stands where a file belongs. Nothing is copied then.
    """
    missing = [name for name in files if not (folder / name).is_file()]
    different = [name for name in files if name not in missing and not cmp(folder / name, files[name], shallow=False)]
    blocked = [name for name in missing if _is_blocked(folder, name)]
    if different or blocked:
        names = "\n".join(f"  {folder / name}" for name in sorted(different + blocked))
        msg = f"these files exist and are different; nothing was copied, choose another folder:\n{names}"
        raise FileExistsError(msg)
    for name in missing:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], folder / name)
    return missing


def _is_blocked(folder: Path, name: Path) -> bool:
    """Return whether a folder has the name of a file, or a file that of a folder above it."""
    target = folder / name
    parents = [folder / parent for parent in name.parents]
    return target.exists() or any(parent.exists() and not parent.is_dir() for parent in parents)


def _report(folder: Path, copied: list[Path], number: int) -> str:
    """Return what was copied, folder by folder, and the command to type next."""
    lines = [f"copied {len(copied)} of {number} files to {folder.resolve()}; the others were there already"]
    if len(copied) == number:
        lines = [f"copied {number} files to {folder.resolve()}"]
    lines += [f"  {part}" for part in sorted({name.parent.as_posix() for name in copied})]
    lines += ["", "To train the lite preset on the sample (its weights come with anomalib-mediclip[lite]), type:"]
    if folder.resolve() != Path.cwd():
        lines.append(f"  cd {shlex.quote(str(folder))}")
    return "\n".join([*lines, f"  {NEXT_COMMAND}"])


def main(arguments: list[str] | None = None) -> None:
    """Copy the files and say what to type next; end with status 1 if that would overwrite something."""
    parser = argparse.ArgumentParser(
        prog="python -m anomalib_mediclip",
        description="Copy the configurations (configs/) and the sample data set (datasets/sample) into a folder, so "
        "that the documented commands work there as they are written. Existing files are never overwritten.",
        epilog=f"Afterwards, train on the sample: {NEXT_COMMAND}",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="target (default: the current folder)")
    folder = parser.parse_args(arguments).folder
    try:
        files = starter_files()
        copied = copy_starter(folder, files)
    except OSError as error:
        sys.exit(f"{parser.prog}: {error}")
    print(_report(folder, copied, len(files)))


if __name__ == "__main__":
    main()
