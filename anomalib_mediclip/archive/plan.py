# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What is predicted by which model, in which shards: fixed when a folder of results is begun, and never changed."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from anomalib_mediclip.archive.manifest import MANIFEST
from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.display import PLANE_VARIABLE, WINDOW_VARIABLE
from anomalib_mediclip.limits import VARIABLE as LIMIT_VARIABLE

PLAN = "plan.json"
PARTS = "parts"
QUARANTINE = "quarantine"
FILES_IN_SHARD = 1000
READING = (WINDOW_VARIABLE, PLANE_VARIABLE, LIMIT_VARIABLE)  # how files are read


@dataclass(frozen=True)
class Plan:
    """Plan of a folder of results.

    Args:
        output (Path): The folder.
        images (Path): Folder of the archive.
        model (Path): Checkpoint, or exported file.
        model_hash (str): Its SHA-256.
        files (int): Number of files of the archive.
        shards (int): Number of shards.
        reading (dict[str, str]): Variables of the environment that say how files are read.
    """

    output: Path
    images: Path
    model: Path
    model_hash: str
    files: int
    shards: int
    reading: dict[str, str]

    @property
    def manifest(self) -> Path:
        """List of all files."""
        return self.output / MANIFEST

    def rows_of(self, shard: int) -> tuple[int, int]:
        """Return the rows of the manifest that are in a shard.

        Args:
            shard (int): Number of the shard, from 0.

        Returns:
            tuple[int, int]: First row, and first row of the next shard.

        Example:
            >>> plan = Plan(Path("out"), Path("in"), Path("model.ckpt"), "", files=10, shards=3, reading={})
            >>> [plan.rows_of(shard) for shard in range(3)]
            [(0, 3), (3, 6), (6, 10)]
        """
        return shard * self.files // self.shards, (shard + 1) * self.files // self.shards

    def shard_of(self, row: int) -> int:
        """Return the shard in which a row of the manifest is.

        Args:
            row (int): Number of the row.

        Returns:
            int: Number of the shard.
        """
        return ((row + 1) * self.shards - 1) // self.files

    def part(self, shard: int) -> Path:
        """Return the file of the predictions of a shard; it is there when the shard is finished.

        Args:
            shard (int): Number of the shard.

        Returns:
            Path: Table without header.
        """
        return self.output / PARTS / f"{shard:07d}.csv"

    def quarantined(self, shard: int) -> Path:
        """Return the file that lists the files of a shard at which workers died.

        Args:
            shard (int): Number of the shard.

        Returns:
            Path: List, one file in a line.
        """
        return self.output / QUARANTINE / f"{shard:07d}.txt"

    def unfinished(self) -> list[int]:
        """List the shards without predictions."""
        there = {entry.name for entry in os.scandir(self.output / PARTS)}
        return [shard for shard in range(self.shards) if self.part(shard).name not in there]

    def forget(self, shards: Iterable[int]) -> None:
        """Remove the predictions of shards, so that they are predicted again.

        Args:
            shards (Iterable[int]): Numbers of shards.
        """
        for shard in shards:
            self.part(shard).unlink(missing_ok=True)

    def write(self) -> None:
        """Write the plan into its folder, which makes it the one of this folder."""
        content = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        write_whole(self.output / PLAN, json.dumps(content, indent=1))

    @classmethod
    def read(cls, output: Path) -> Self | None:
        """Read the plan of a folder.

        Args:
            output (Path): Folder.

        Returns:
            Self | None: Plan; None if the folder has none.

        Raises:
            ValueError: If the file is damaged.
        """
        file = output / PLAN
        if not file.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            paths = {name: Path(content.pop(name)) for name in ("images", "model")}
            return cls(**content | paths | {"output": output})
        except (ValueError, TypeError, KeyError) as error:
            msg = f"{file} is damaged: give another output folder, or remove this one"
            raise ValueError(msg) from error

    def check_same(self, other: "Plan") -> None:
        """Refuse to go on in a folder whose results are of something else.

        Args:
            other (Plan): What is asked for now.

        Raises:
            ValueError: If images, model, shards or the way of reading differ, naming each.
        """
        names = {"images": "images", "model_hash": "model (its SHA-256)", "shards": "shards", "reading": "environment"}
        differing = [
            f"{text} {getattr(self, name)}, not {getattr(other, name)}"
            for name, text in names.items()
            if getattr(self, name) != getattr(other, name)
        ]
        if differing:
            msg = f"{self.output} was begun with {'; '.join(differing)}. Give the same again, or another output folder."
            raise ValueError(msg)


def reading_of_this_process() -> dict[str, str]:
    """Return the variables of the environment that say how files are read."""
    return {name: os.environ[name] for name in READING if name in os.environ}
