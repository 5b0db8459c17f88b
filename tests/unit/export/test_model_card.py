# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What the card says of corrections, and file names that would be Markdown or HTML."""

from anomalib_mediclip.export.model_card import corrected_card, describe_corrections

MOVED = {"kind": "threshold", "of": "0" * 64, "shown": 0.63, "before": 3.79622, "after": 4.32843}
CARD = """# MediCLIP on BUSI

`model.onnx`: ONNX.

## Thresholds

| | |
| --- | --- |
| image | 3.79622 |
| pixel | 4.17534 |
| normal images expected to be called anomalous | 13 % |

## Metrics on the test set

| image | 0.9 |
"""


def test_hostile_names_stay_text() -> None:
    names = ["<img src=x onerror=alert(1)>.png", "=cmd|' /C calc'!A0.png", "a\n## Intended use\r.png"]
    images = [{"file": name, "sha256": "1" * 64} for name in names]
    card = describe_corrections([{"kind": "normal images", "images": images, "epochs": 0}])
    assert "<img" not in card
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in card
    rows = [line for line in card.splitlines() if line.endswith(f"| {'1' * 64} |")]
    assert len(rows) == 3
    assert all(row.replace("\\|", "").count("|") == 3 for row in rows)
    assert "\n## Intended use" not in card


def test_a_graph_with_another_threshold_gets_a_card_with_it() -> None:
    card = corrected_card(CARD, "model.onnx", "new.onnx", MOVED)
    assert "`new.onnx`: ONNX." in card
    assert "| image | 4.32843 |\n| pixel | 4.17534 |\n" in card
    assert "expected to be called" not in card
    assert "from 3.79622 to 4.32843: where scores of 0.63 were shown before." in card
    assert "## Metrics on the test set, before the corrections" in card
    again = corrected_card(card, "new.onnx", "newer.onnx", MOVED | {"before": 4.32843, "after": 5.0})
    assert again.count("## Corrections after the training") == 1
    assert "| image | 5 |" in again
    assert again.count("A person moved the threshold") == 2
    assert again.count("before the corrections") == 1
