# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Jobs in processes of their own: each has its own peak memory, and a killed job does not end the others."""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

PRELOADED = ["__main__", "anomalib_mediclip.benchmark.job"]  # imported once, not in every process
BEGUN = "begun"


def run_isolated(function: Callable[..., Result], *arguments: Any, log: Path) -> Result:
    """Call a function in a process of its own that ends when it returns, or when this process dies.

    Args:
        function (Callable[..., Result]): Function that can be pickled.
        *arguments (Any): Its arguments.
        log (Path): File to which the process appends what it logs and prints.

    Returns:
        Result: What the function returned.

    Raises:
        RuntimeError: If the process died, with the cause; whatever the function raises is raised here.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    usual = multiprocessing.get_start_method()
    process = context.Process(target=_report, args=(sender, usual, function, arguments, log))
    messages: list[Any] = []
    # the pipe ends when the process does, because it has the only other end
    with contextlib.suppress(EOFError, OSError), receiver:
        with sender:
            process.start()
        messages.append(receiver.recv())
        messages.append(receiver.recv())
    if len(messages) < 2:
        raise RuntimeError(_cause_of_death(process, log, has_begun=bool(messages)))
    process.join()
    error, result = messages[1]
    if error is not None:
        raise error
    return result


def _cause_of_death(process: Any, log: Path, has_begun: bool) -> str:
    """Say why a process gave no result."""
    if process.pid is not None:
        process.join()
    code: int | None = process.exitcode if process.pid is not None else None
    if code is not None and -code == signal.SIGKILL:
        return (
            "the process of this job was killed, most likely because memory ran out: use a smaller batch or image size"
        )
    if code is not None and code < 0:
        return f"the process of this job was ended by the signal {signal.Signals(-code).name}; see {log}"
    if code and has_begun:
        return f"the process of this job ended with status {code}; see {log}"
    return (
        "the process of this job could not start. A script that runs the benchmark must do so under "
        'if __name__ == "__main__": because every process of a job reads the script again'
    )


def _report(
    sender: Any, start_method: str, function: Callable[..., Any], arguments: tuple[Any, ...], log: Path
) -> None:
    """Call a function and send what it returns or raises."""
    with sender:
        _prepare(start_method)
        sender.send(BEGUN)
        message: tuple[Exception | None, Any]
        try:
            message = None, _call_quietly(function, arguments, log)
        except Exception as error:  # raised in the other process
            message = _sendable(error), None
        sender.send(message)


def _sendable(error: Exception) -> Exception:
    """Return an error that can be sent: many of other libraries cannot."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    except Exception:  # whatever a constructor does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


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
