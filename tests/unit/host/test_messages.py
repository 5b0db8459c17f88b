# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What the command says about mistakes, and which errors keep their traceback."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.logging import RichHandler

from anomalib_mediclip.drawing import GREEN, outline
from anomalib_mediclip.host.messages import end_with_sentence, log_once, misplaced_option
from anomalib_mediclip.io import find_images


def test_errors_that_help_end_the_command(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: no folder .*nowhere") as ended:
        end_with_sentence(lambda: find_images(tmp_path / "nowhere"))
    assert isinstance(ended.value.code, str)  # printed, and status 1


def test_other_errors_keep_their_traceback() -> None:
    mistakes: list[tuple[type[Exception], Callable[[], object]]] = [
        (ZeroDivisionError, lambda: 1 / 0),
        (ValueError, lambda: int("x")),
        (TypeError, lambda: outline(np.zeros((2, 2, 3), np.uint8), "no mask", GREEN)),  # fails in a call of ours
    ]
    for kind, mistake in mistakes:
        with pytest.raises(kind):
            end_with_sentence(mistake)


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ("train --data.k_shot 4 --data MedicalFolder", "--data MedicalFolder"),
        ("train --data.k_shot=4 --data=BUSI", "--data BUSI"),
        ("train --data BUSI --model.seed 1 --model anomalib_mediclip.MediCLIP", "--model anomalib_mediclip.MediCLIP"),
        ("train --data MedicalFolder --data.k_shot 4", ""),
        ("train --config a.yaml --data.k_shot 4 --data MedicalFolder", ""),
        ("train --config a.yaml --data.k_shot 4", ""),
        ("train --data.category bottle --data MVTecAD", ""),  # none of ours
    ],
)
def test_options_before_the_name_are_told(arguments: str, first: str) -> None:
    message = misplaced_option(arguments.split())
    assert bool(message) == bool(first)
    assert f"give {first} first" in message or not first


def test_a_line_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    root, plain, rich = logging.getLogger(), logging.StreamHandler(), RichHandler()
    monkeypatch.setattr(root, "handlers", [rich])
    log_once()
    assert root.handlers == [rich]
    monkeypatch.setattr(root, "handlers", [plain, rich])
    log_once()
    assert root.handlers == [plain]
