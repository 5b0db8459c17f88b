# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Where weights come from."""

from pathlib import Path

import pytest
import torch

from anomalib_mediclip.encoders.weights import lite_weights_overlay


def test_writing_the_packaged_weights_leaves_the_global_generator_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    written = Path(lite_weights_overlay()["file"])  # the first run on a machine
    assert torch.equal(torch.rand(4), expected)
    assert written.is_relative_to(tmp_path)
    before = written.stat().st_mtime_ns
    lite_weights_overlay()
    assert written.stat().st_mtime_ns == before
