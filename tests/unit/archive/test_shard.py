# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Rows of a shard are those that a prediction of a folder would have."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from anomalib_mediclip.archive.predictors import Scored
from anomalib_mediclip.archive.shard import predict_files


class Bright:
    threshold = "0.5"

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def scores(self, images: Iterable[torch.Tensor]) -> Iterator[Scored]:
        return (Scored("0.75", True) for _ in images)

    def predict(self, path: Path) -> Any:
        raise NotImplementedError


def test_no_name_of_a_file_is_a_formula(tmp_path: Path, sample_data: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    image = Path("=cmd") / "a.png"
    image.parent.mkdir()
    image.write_bytes((sample_data / "train" / "normal" / "000.png").read_bytes())
    (read, unreadable) = predict_files([image, Path("=cmd/gone.png")], Bright(), readers=1)
    assert read == ("./=cmd/a.png", "0.75", "anomalous", "0.5", "")
    assert unreadable[:4] == ("./=cmd/gone.png", "", "unreadable", "")
    assert not unreadable[4].startswith("=")
