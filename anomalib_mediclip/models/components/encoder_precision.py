# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What Lightning's precision means for a frozen encoder and a few learnt weights around it.

``32-true`` and the mixed precisions are Lightning's own. ``bf16-true`` would cast everything; here it casts the frozen
encoder alone, and images, learnt weights, maps and loss stay float32.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lightning.pytorch.plugins.precision import HalfPrecision, Precision

from anomalib_mediclip.encoders.bfloat16 import Bfloat16Towers

logger = logging.getLogger(__name__)

if TYPE_CHECKING:  # what it is mixed into
    from anomalib.models.components import AnomalibModule as Host
else:
    Host = object


class EncoderPrecision(Host):
    """Mixin for an ``AnomalibModule`` whose ``model`` names its ``frozen_towers``.

    Outside a run the encoder is in float32, so that whatever is exported or saved holds its own weights.
    """

    model: Any
    _bfloat16_towers: Bfloat16Towers | None = None
    _precision_plugin: Precision | None = None
    _logged_precision: str | None = None

    def setup(self, stage: str) -> None:
        """Cast the encoder, and leave nothing for Lightning to cast.

        Args:
            stage (str): Stage of the trainer.

        Raises:
            ValueError: If the precision is ``16-true``.
        """
        super().setup(stage)
        plugin = self.trainer.strategy.precision_plugin
        self._cast_encoder(_wants_bfloat16(plugin))
        self._log_precision()
        if isinstance(plugin, HalfPrecision):
            self._precision_plugin = plugin
            self.trainer.strategy.precision_plugin = Precision()

    def teardown(self, stage: str) -> None:
        """Give encoder and trainer back as they were.

        Args:
            stage (str): Stage of the trainer.
        """
        super().teardown(stage)
        self._cast_encoder(False)
        if self._precision_plugin is not None:
            self.trainer.strategy.precision_plugin = self._precision_plugin
            self._precision_plugin = None

    @contextlib.contextmanager
    def float32_encoder(self) -> Iterator[None]:
        """Have the encoder in its own float32 weights for the time of a ``with`` block.

        Yields:
            None: Nothing.
        """
        cast = self._bfloat16_towers is not None
        self._cast_encoder(False)
        try:
            yield
        finally:
            self._cast_encoder(cast)

    def _cast_encoder(self, to_bfloat16: bool) -> None:
        """Bring the encoder to bfloat16, or back to float32, if it is not there already."""
        if to_bfloat16 and self._bfloat16_towers is None:
            self._bfloat16_towers = Bfloat16Towers(self.model.frozen_towers)
        elif not to_bfloat16 and self._bfloat16_towers is not None:
            self._bfloat16_towers.restore()
            self._bfloat16_towers = None

    def _log_precision(self) -> None:
        """Say in what the encoder computes, once."""
        present = "float32" if self._bfloat16_towers is None else "bfloat16"
        if present != self._logged_precision:
            logger.info("The frozen encoder computes in %s (--trainer.precision 32-true or bf16-true).", present)
        self._logged_precision = present


def _wants_bfloat16(plugin: Precision) -> bool:
    """Tell whether a precision of Lightning means an encoder in bfloat16."""
    if isinstance(plugin, HalfPrecision) and plugin.precision == "16-true":
        msg = "--trainer.precision 16-true is not supported: use bf16-true, 16-mixed or 32-true."
        raise ValueError(msg)
    return isinstance(plugin, HalfPrecision)
