# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A process for every job."""

import logging
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest

from anomalib_mediclip.benchmark.isolation import run_isolated

pytestmark = pytest.mark.slow  # the process that all jobs are forked from imports torch first


def talk(number: int) -> tuple[int, int]:
    print("printed")
    print("to stderr", file=sys.stderr)
    logging.getLogger("some.library").info("not shown")
    logging.getLogger("some.library").warning("logged")
    warnings.warn("warned", stacklevel=1)
    return number + 1, os.getpid()


def fail() -> None:
    msg = "the reason"
    raise KeyError(msg)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out


def end() -> None:
    os._exit(7)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class UnsendableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fail_oddly() -> None:
    raise UnsendableError("an", "error")


def test_result_comes_back_and_all_output_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result, process = run_isolated(talk, 41, log=tmp_path / "sub" / "log.txt")
    assert result == 42
    assert process != os.getpid()
    text = (tmp_path / "sub" / "log.txt").read_text()
    for word in ("printed", "to stderr", "logged", "warned"):
        assert word in text
    assert "printed" not in capfd.readouterr().out


def test_error_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="the reason"):
        run_isolated(fail, log=tmp_path / "log.txt")
    text = (tmp_path / "log.txt").read_text()
    assert "Traceback" in text
    assert "in fail" in text


def test_killed_process_is_explained_and_the_next_one_runs(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="was killed, most likely because memory ran out"):
        run_isolated(die, log=tmp_path / "log.txt")
    assert run_isolated(talk, 1, log=tmp_path / "log.txt")[0] == 2


@pytest.mark.parametrize(("function", "words"), [(end, "ended with status 7"), (terminate, "by the signal SIGTERM")])
def test_the_real_cause_of_an_end_is_named(tmp_path: Path, function, words: str) -> None:
    with pytest.raises(RuntimeError, match=words) as error:
        run_isolated(function, log=tmp_path / "log.txt")
    assert "memory" not in str(error.value)
    assert str(tmp_path / "log.txt") in str(error.value)


def test_an_error_that_cannot_be_sent_is_described(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="UnsendableError: an error"):
        run_isolated(fail_oddly, log=tmp_path / "log.txt")
