# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Jobs in processes of their own: each has its own peak memory, and a killed job does not end the others."""

import contextlib
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

PRELOADED = ["__main__", "anomalib_mediclip.benchmark.job"]  # imported once, not in every process


def run_isolated(function: Callable[..., Result], *arguments: Any, log: Path) -> Result:
    """Call a function in a process of its own that ends when it returns, or when this process dies.

    Args:
        function (Callable[..., Result]): Function that can be pickled.
        *arguments (Any): Its arguments.
        log (Path): File to which the process appends what it logs and prints.

    Returns:
        Result: What the function returned.

    Raises:
        RuntimeError: If the process died; whatever the function raises is raised here.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(PRELOADED)
    usual = multiprocessing.get_start_method()
    try:
        with ProcessPoolExecutor(1, context, initializer=_prepare, initargs=(usual,)) as pool:
            return pool.submit(_call_quietly, function, arguments, log).result()
    except BrokenProcessPool as error:
        msg = (
            "the process of this job was killed, most likely because memory ran out: use a smaller batch or image size"
        )
        raise RuntimeError(msg) from error


def _prepare(start_method: str) -> None:
    """Have data loaders start their workers as usual, and end this process when its parent is killed.

    Otherwise every worker would import everything again, and an orphan would compete with a restarted benchmark.
    """
    multiprocessing.set_start_method(start_method, force=True)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _call_quietly(function: Callable[..., Result], arguments: tuple[Any, ...], log: Path) -> Result:
    """Call a function with all that it logs and prints going to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.captureWarnings(capture=True)
        for logger in [logging.getLogger(name) for name in logging.root.manager.loggerDict]:
            logger.handlers, logger.propagate = [], True
        logging.root.handlers = [handler]
        try:
            return function(*arguments)
        except Exception:
            logging.exception("the job failed")  # only the last line of it reaches the table
            raise
