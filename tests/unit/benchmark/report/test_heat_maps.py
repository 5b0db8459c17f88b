# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Grid of heat maps."""

import base64
import io

import numpy as np
from PIL import Image

from anomalib_mediclip.benchmark.report.heat_maps import ROW_WIDTH, WIDTH, draw_grid
from anomalib_mediclip.drawing import GREEN


def examples(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    ramp = np.linspace(0, 1, 3 * 20 * 40).reshape(3, 20, 40)
    return {
        "names": np.array(["a.png", "b.png", "c.png"]), "labels": np.array([1, 1, 0]), "k_shot": np.array(16),
        "seed": np.array(2), "images": np.full((3, 20, 40, 3), 128, np.uint8), "masks": np.zeros((3, 20, 40), np.uint8),
        "map:A": ramp.astype(np.float16), "map:B": (1000 * ramp - 7).astype(np.float16), **arrays,
    }  # fmt: skip


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))).astype(int)


def test_rows_and_columns() -> None:
    grid = draw_grid("X", examples(), ["B", "failed", "A"])
    assert grid.columns == ["image", "B", "A"]  # no ground truth anywhere, no map of the failed model
    assert [row[:2] for row in grid.rows] == [("a.png", "anomalous"), ("b.png", "anomalous"), ("c.png", "normal")]
    assert (grid.k_shot, grid.seed) == (16, 2)
    assert pixels(grid.rows[0][2][0]).shape == (WIDTH // 2, WIDTH, 3)


def test_each_model_has_its_own_scale_over_all_images() -> None:
    """Maps that differ in scale and offset look alike; the lowest image is bluer than the highest."""
    rows = draw_grid("X", examples(), ["A", "B"]).rows
    for _, _, (_, first, second) in rows:
        assert np.abs(pixels(first) - pixels(second)).mean() < 1
    red, _, blue = np.moveaxis(np.stack([pixels(row[2][1]) for row in rows]), -1, 0).mean(axis=(2, 3))
    assert blue[0] > red[0]
    assert red[2] > blue[2]


def test_outlier_does_not_darken_the_rest() -> None:
    spike = examples()["map:A"].copy()
    spike[0, 0, 0] = 1000
    rows = draw_grid("X", examples(), ["A"]).rows
    spiked = draw_grid("X", examples(**{"map:A": spike}), ["A"]).rows
    assert np.abs(pixels(rows[2][2][1]) - pixels(spiked[2][2][1])).mean() < 3


def test_outline_of_the_ground_truth() -> None:
    masks = np.zeros((3, 20, 40), np.uint8)
    masks[0, 5:15, 10:30] = 1
    grid = draw_grid("X", examples(masks=masks), [])
    assert grid.columns == ["image", "ground truth"]
    outlined, plain = pixels(grid.rows[0][2][1]), pixels(grid.rows[1][2][1])
    green = np.abs(outlined - np.array(GREEN)).sum(axis=-1) < 150
    assert green.any()
    assert not green[WIDTH // 4, WIDTH // 2]  # the inside stays visible
    assert np.abs(plain - 128).max() < 4


def test_a_reconstruction_stands_before_the_map_of_its_model() -> None:
    dark, light = (np.full((1, 10, 20, 3), value, np.uint8) for value in (10, 240))
    arrays = examples(**{"reconstruction:B": np.concatenate([dark, light, dark])})
    grid = draw_grid("X", arrays, ["A", "B"])
    assert grid.columns == ["image", "A", "B: reconstruction", "B"]
    assert [round(pixels(row[2][2]).mean(), -1) for row in grid.rows] == [10, 240, 10]
    assert pixels(grid.rows[0][2][2]).shape == pixels(grid.rows[0][2][0]).shape


def test_flat_map_is_drawn() -> None:
    grid = draw_grid("X", examples(**{"map:A": np.full((3, 20, 40), 3, np.float16)}), ["A"])
    assert pixels(grid.rows[0][2][1]).std(axis=(0, 1)).max() < 1


def test_many_models_share_the_width_of_the_page() -> None:
    many = {f"map:{model}": np.zeros((3, 20, 40), np.float16) for model in "CDEFGH"}
    (_, _, pictures), *_ = draw_grid("X", examples(**many), list("ABCDEFGH")).rows
    assert sum(pixels(picture).shape[1] for picture in pictures) <= ROW_WIDTH
