# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Task CutPaste."""

import numpy as np
import pytest

from anomalib_mediclip.synthesis.cut_paste import (
    PatchCut,
    changed_label,
    cut_patch,
    draw_patch_cut,
    match_source,
    paste_patch,
)


def smooth_image(height: int, width: int) -> np.ndarray:
    rows, columns = np.indices((height, width))
    return (0.5 + 0.2 * np.sin(rows / 15) + 0.2 * np.cos(columns / 20))[..., None].astype(np.float32)


def test_cut_without_rotation_and_scale_is_a_crop():
    image = smooth_image(101, 121)
    patch = cut_patch(image, PatchCut(source=0, degrees=0.0, scale=1.0, position=(0.5, 0.25)), size=(20, 40))
    assert patch[..., 0] == pytest.approx(image[39:61, 19:61, 0], abs=1e-5)  # the margin begins at (40, 20) - 1


def test_cut_follows_rotation_and_scale():
    ramp = np.indices((101, 101))[0][..., None].astype(np.float32)
    patch = cut_patch(ramp, PatchCut(source=0, degrees=30.0, scale=1.2, position=(0.5, 0.5)), size=(20, 20))
    assert np.diff(patch[..., 0], axis=0) == pytest.approx(1.2 * np.cos(np.pi / 6), abs=1e-3)
    assert np.diff(patch[..., 0], axis=1) == pytest.approx(-1.2 * np.sin(np.pi / 6), abs=1e-3)


@pytest.mark.parametrize("position", [(0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("degrees", [-45.0, 45.0])
def test_large_cut_shrinks_until_it_fits_the_source(position, degrees):
    ramps = np.indices((100, 80)).transpose(1, 2, 0).astype(np.float32)
    patch = cut_patch(ramps, PatchCut(source=0, degrees=degrees, scale=3.0, position=position), size=(60, 48))
    inner = patch[1:-1, 1:-1].reshape(-1, 2)
    assert np.all(np.ptp(inner, axis=0) <= [80, 64])
    assert np.all(inner.min(axis=0) >= -1e-3)
    assert np.all(inner.max(axis=0) <= [99, 79])


@pytest.mark.parametrize("corner", [(0, 0), (30, 20), (60, 50)])
@pytest.mark.parametrize("blending", ["paste", "poisson"])
def test_paste_changes_the_mask_only(corner, blending):
    image = smooth_image(80, 70)
    before = image.copy()
    mask = np.ones((20, 20), bool)
    mask[:, 15:] = False
    patch = np.random.default_rng(0).random((22, 22, 1), np.float32)
    result = paste_patch(image, patch, mask, corner, blending)
    region = np.zeros((80, 70), bool)
    region[corner[0] : corner[0] + 20, corner[1] : corner[1] + 20] = mask
    assert np.array_equal(image, before)
    assert np.array_equal(result[~region], image[~region])
    assert np.abs(result - image)[region].mean() > 0.05
    if blending == "paste":
        assert np.array_equal(result[region], patch[1:-1, 1:-1][mask])


def test_poisson_leaves_less_of_a_step_than_pasting():
    image = smooth_image(80, 70)
    mask = np.zeros((30, 30), bool)
    mask[3:-3, 3:-3] = True
    patch = cut_patch(1 - image, PatchCut(source=0, degrees=10.0, scale=1.0, position=(0.2, 0.9)), size=(30, 30))
    steps = {
        blending: np.abs(np.diff(paste_patch(image, patch, mask, (20, 20), blending)[23:47, 22:24, 0])).max()
        for blending in ("poisson", "paste")
    }
    assert steps["poisson"] < 0.3 * steps["paste"]


def test_changed_label_has_the_values_of_the_official_code():
    before = np.full((8, 8, 1), 100 / 255, np.float32)
    after = before.copy()
    region = np.zeros((8, 8), bool)
    region[2] = True
    after[2, 3] = 101 / 255  # brighter by 1
    after[2, 4] = 102 / 255  # brighter by 2
    after[2, 5] = 99 / 255  # darker by 1 wraps around to 255
    after[0, 0] = 1.0  # outside the region
    label = changed_label(before, after, region)
    assert label[2] == pytest.approx([0, 0, 0, 0.9999963, 1, 1, 0, 0], abs=1e-6)
    assert label.sum() == pytest.approx(3, abs=1e-4)


def test_changed_label_fills_holes_of_each_part():
    before = np.full((40, 40, 1), 0.5, np.float32)
    after = before.copy()
    region = np.zeros((40, 40), bool)
    region[5:25, 5:25] = True
    after[region] = 0.8
    after[12:18, 12:18] = 0.5  # unchanged hole, too wide for the closing
    after[5:25, 20:25] = 0.5  # unchanged strip that is open to the outside
    label = changed_label(before, after, region)
    assert np.all(label[5:25, 5:20] == 1)
    assert not label[:, 20:].any()


@pytest.mark.parametrize(("channels", "source_channels"), [(1, 3), (3, 1), (3, 3)])
def test_source_takes_the_size_and_channels_of_the_image(channels, source_channels):
    source = np.full((50, 60, source_channels), 0.5, np.float32)
    assert match_source(source, np.zeros((64, 70, channels), np.float32)) == pytest.approx(
        np.full((64, 70, channels), 0.5)
    )


def test_cuts_are_drawn_from_all_sources_and_angles():
    rng = np.random.default_rng(0)
    cuts = [draw_patch_cut(rng, sources=4) for _ in range(300)]
    assert {cut.source for cut in cuts} == {0, 1, 2, 3}
    assert -45 <= min(cut.degrees for cut in cuts) < -40
    assert 40 < max(cut.degrees for cut in cuts) <= 45
    assert np.median(np.abs(np.log([cut.scale for cut in cuts]))) == pytest.approx(np.log(1.0693), abs=0.02)
