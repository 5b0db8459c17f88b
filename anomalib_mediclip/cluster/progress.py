# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Progress of work on a cluster: done, running, failed, waiting, and the time left."""

from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """A line that says how far the work is; the time left follows from what was done in this run.

    Args:
        title (str): What is done.
        total (int): Number of jobs or shards, those of former runs included.
        finished (int): Number of those that former runs have finished.
        unit (str): What is counted, such as ``job``.
    """

    def __init__(self, title: str, total: int, finished: int, unit: str) -> None:
        self._failed = 0
        self._bar = tqdm(total=total, initial=finished, desc=title, unit=f" {unit}", smoothing=0, dynamic_ncols=True)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the line."""
        self._bar.close()

    def finish(self, failed: bool = False) -> None:
        """Count one as ended.

        Args:
            failed (bool, optional): Whether it has failed. Defaults to ``False``.
        """
        self._failed += failed
        self._bar.update()

    def show(self, running: int) -> None:
        """Show how many run; all others wait.

        Args:
            running (int): Number of jobs or shards at work.
        """
        waiting = int(self._bar.total - self._bar.n) - running
        self._bar.set_postfix_str(f"{running} running, {self._failed} failed, {waiting} waiting")

    @staticmethod
    def write(line: str) -> None:
        """Print a line above the progress.

        Args:
            line (str): Text.
        """
        tqdm.write(line)
