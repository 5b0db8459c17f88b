# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The page and the table of a parity report."""

import pandas as pd

from anomalib_mediclip.parity.tables import write_tables

ROW = {
    "format": "onnx",
    "precision": "f32",
    "size_mb": 12.34,
    "latency_ms": 9.87,
    "throughput": 100.0,
    "map_max": 1.23e-5,
    "flipped_labels": 0.0125,
    "auroc": float("nan"),
    "auroc_change": float("nan"),
}


def test_a_page_for_reading_and_a_table_with_every_digit(tmp_path) -> None:
    failed = {"format": "openvino", "precision": "bf16", "error": "RuntimeError: a | b"}
    page = write_tables([ROW, failed], "model.ckpt: MediCLIP", tmp_path / "out").read_text()
    assert "model.ckpt: MediCLIP" in page
    assert "openvino" in page.splitlines()[2]  # among the versions
    assert "| onnx | f32 | 12.3 | 9.9 | 100.0 | 1.2e-05 | 1.25% |  |" in page
    assert "AUROC" not in page  # nothing measured, no column
    assert "RuntimeError: a \\| b |" in page
    table = pd.read_csv(tmp_path / "out" / "parity.csv")
    assert table["map_max"][0] == 1.23e-5
    assert table["error"][1] == "RuntimeError: a | b"
