# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Reading and writing of checkpoint files: a full disk leaves no part of one, and a damaged one is named."""

import errno
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.utils.serialization import anomalib_safe_globals

from anomalib_mediclip.atomic import write_whole


class WholeFileCheckpointIO(AnomalibCheckpointIO):
    """anomalib's checkpoint files, written whole or not at all.

    Lightning writes a checkpoint into the system's temporary folder and then copies it, so that a disk that is full
    keeps the first part of it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; see Lightning's method of this name."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = True) -> dict[str, Any]:
        """Read a checkpoint; see Lightning's method of this name."""
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only)
        return read_checkpoint(path, self.extra_safe_globals, map_location, weights_only)


def read_checkpoint(
    path: Path | str, safe_globals: Sequence[Any] = (), map_location: Any = "cpu", weights_only: bool = True
) -> dict[str, Any]:
    """Read a checkpoint from a local file.

    Args:
        path (Path | str): File.
        safe_globals (Sequence[Any], optional): Types that may be unpickled besides anomalib's. Defaults to ``()``.
        map_location (Any, optional): As in ``torch.load``. Defaults to ``"cpu"``.
        weights_only (bool, optional): As in ``torch.load``. Defaults to ``True``.

    Returns:
        dict[str, Any]: Checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or a part of one.
    """
    if not Path(path).is_file():
        msg = f"There is no checkpoint {path} (absolute: {Path(path).resolve()}). Check --ckpt_path."
        raise FileNotFoundError(msg)
    size = os.path.getsize(path)  # noqa: PTH202  # also takes strings
    try:
        with anomalib_safe_globals(extra=list(safe_globals)):
            content: Any = torch.load(path, map_location=map_location, weights_only=weights_only)
    except (EOFError, OSError, RuntimeError, UnpicklingError) as error:
        msg = (
            f"{path} ({size} bytes) cannot be read as a checkpoint: {_reason(error, size)}. "
            "Give another checkpoint, or train again."
        )
        raise ValueError(msg) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        msg = f"{path} is not a checkpoint of a training: it has no state_dict. Give the model.ckpt of a run."
        raise ValueError(msg)
    return content


def _reason(error: Exception, size: int) -> str:
    """Say what is wrong with a file in words."""
    if not size:
        return "it is empty, as after a full disk"
    if isinstance(error, RuntimeError) or getattr(error, "errno", None) == errno.EINVAL:  # torch looks beyond its end
        return "it is damaged or cut short, as after a full disk"
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return f"it holds a {foreign[1]}, and only plain data is read"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
