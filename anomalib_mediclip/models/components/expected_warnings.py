# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Lightning's warnings about a model that is built as it should be, silenced until the first batch is trained on."""

import contextlib
import warnings
from typing import Any

from lightning import Callback, LightningModule, Trainer


class ExpectedWarnings(Callback):
    """Ignores some warnings while a training starts, and no longer.

    Args:
        *messages (str): Regular expressions that match the beginning of a warning.
    """

    def __init__(self, *messages: str) -> None:
        self.messages = messages
        self._ignored = contextlib.ExitStack()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ignore the warnings."""
        del trainer, pl_module
        self._ignored.enter_context(warnings.catch_warnings())
        for message in self.messages:
            warnings.filterwarnings("ignore", message=message)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Let warnings pass again."""
        del args, kwargs
        self._ignored.close()

    on_fit_end = on_train_batch_start
    on_exception = on_train_batch_start
