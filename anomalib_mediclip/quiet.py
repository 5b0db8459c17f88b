# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Silence third-party loggers inside a ``with`` block."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*names: str | None) -> Iterator[None]:
    """Let loggers pass errors only, for the time of a ``with`` block.

    Args:
        *names (str | None): Names of loggers; None is the root logger.

    Yields:
        None: Nothing.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
