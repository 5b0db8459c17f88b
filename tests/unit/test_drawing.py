# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Outlines, heat maps and captions."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from anomalib_mediclip.drawing import BACKGROUND, GREEN, colours, heat_map, outline, write_caption

PICTURE = np.full((40, 60, 3), 100, np.uint8)


def test_outline_follows_the_rim_and_that_of_a_hole_and_leaves_the_rest() -> None:
    mask = np.zeros((40, 60))
    mask[5:35, 10:50] = 1
    mask[15:25, 25:35] = 0
    before = PICTURE.copy()
    drawn = outline(PICTURE, mask, GREEN)
    changed = (drawn != PICTURE).any(axis=-1)
    assert np.array_equal(PICTURE, before)
    assert changed[5, 10:50].all()
    assert changed[14, 26:34].all()  # above the hole
    assert not changed[:5].any()
    assert not changed[17:23, 27:33].any()
    assert not changed[8:12, 13:47].any()
    assert (drawn[changed] == GREEN).all()


def test_outline_takes_masks_of_another_size() -> None:
    drawn = outline(PICTURE, np.pad(np.ones((2, 2)), 1), GREEN)
    rows, columns = np.nonzero((drawn != PICTURE).any(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 15, 44)


@pytest.mark.parametrize("thickness", [1, 2])
def test_outline_is_softened_only_when_asked(thickness: int) -> None:
    rows, columns = np.mgrid[:40, :60]
    disc = (rows - 20) ** 2 + (columns - 30) ** 2 < 150
    sharp, soft = (outline(PICTURE, disc, GREEN, thickness, smooth) for smooth in (False, True))
    assert len(np.unique(sharp.reshape(-1, 3), axis=0)) == 2  # picture and line
    assert len(np.unique(soft.reshape(-1, 3), axis=0)) > 2


def test_heat_map_is_as_opaque_as_it_is_told() -> None:
    assert np.array_equal(heat_map(PICTURE, np.zeros((4, 6)), lowest=0, highest=1), PICTURE)
    assert np.array_equal(heat_map(PICTURE, np.ones((4, 6)), lowest=0, highest=1)[0, 0], colours(np.ones(1))[0])


def test_colours_have_one_scale_for_all_maps() -> None:
    scale = colours(np.linspace(0, 1, 5))
    assert scale.dtype == np.uint8
    assert np.array_equal(colours(np.array([0.0, 1.0])), scale[[0, 4]])
    assert len(np.unique(scale, axis=0)) == 5


@pytest.mark.parametrize("text", ["short", "a rather long name of a file in a folder.png"])
def test_captions_fit_and_keep_the_end_of_the_name(text: str) -> None:
    canvas = Image.new("RGB", (120, 20), BACKGROUND)
    write_caption(ImageDraw.Draw(canvas), (0, 2), text, 12, 100)
    assert np.asarray(canvas)[:, 105:].max() == BACKGROUND[0]
    assert np.asarray(canvas).max() > 200
    assert (ImageFont.load_default(12).getlength(text) > 100) == (text != "short")


def drawn(text: str) -> np.ndarray:
    canvas = Image.new("RGB", (300, 20), BACKGROUND)
    write_caption(ImageDraw.Draw(canvas), (0, 2), text, 12, 300)
    return np.asarray(canvas)


@pytest.mark.parametrize(
    ("text", "escaped"), [("\u4e2d", "\\u4e2d"), ("two\nlines", "two\\nlines"), ("caf\udce9", "caf\\udce9")]
)
def test_captions_escape_what_cannot_be_drawn(text: str, escaped: str) -> None:
    assert np.array_equal(drawn(f"{text} \u03b2.png"), drawn(f"{escaped} \u03b2.png"))


def test_captions_draw_other_alphabets() -> None:
    greek, cyrillic = drawn("\u0391\u03b2\u03b3"), drawn("\u0416\u0434\u0438")
    assert not np.array_equal(greek, cyrillic)
    for letters in (greek, cyrillic):
        assert letters.max() > 200
        assert np.nonzero((letters != BACKGROUND[0]).any(axis=(0, 2)))[0].max() < 40  # three letters, no escapes
