# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Pastes of CutPaste against the bounds of the paper, and properties that a user would miss."""

import numpy as np
import pytest
import torch

from anomalib_mediclip.models.cut_paste.pasting import (
    augment,
    draw_colour,
    draw_paste,
    jitter,
    paste,
    paste_visibly,
)
from anomalib_mediclip.seeds import generator_of

SIZE = (200, 256)


def distinct_image(height: int, width: int) -> torch.Tensor:
    """Image without two equal pixels, all of them bright."""
    return torch.linspace(0.5, 1, 3 * height * width).view(3, height, width)


def test_rectangles_have_the_areas_and_aspect_ratios_of_the_paper() -> None:
    generator = generator_of(0)
    drawn = [draw_paste("cut_paste", SIZE, 0.1, generator) for _ in range(1000)]
    heights, widths = (np.array([parameters.size[axis] for parameters in drawn]) for axis in (0, 1))
    areas, ratios = heights * widths / (SIZE[0] * SIZE[1]), widths / heights
    assert 0.018 < areas.min() < 0.03
    assert 0.14 < areas.max() < 0.154
    assert 0.28 < ratios.min() < 0.35
    assert 2.9 < ratios.max() < 3.5
    assert abs(np.log(ratios).mean()) < 0.06  # as often flat as steep
    assert {parameters.angle for parameters in drawn} == {0.0}


def test_sources_are_uniform_over_all_that_fit() -> None:
    generator = generator_of(1)
    drawn = [draw_paste("scar", (64, 64), 0.0, generator) for _ in range(4000)]
    assert all(
        s >= 0 and s + e <= 64 for parameters in drawn for s, e in zip(parameters.source, parameters.size, strict=True)
    )
    shares = np.array([p.source[0] / (64 - p.size[0]) for p in drawn])
    assert np.histogram(shares, bins=4, range=(0, 1))[0] == pytest.approx([1000] * 4, rel=0.12)


def test_scars_are_thin_long_and_turned_and_shrink_with_the_image() -> None:
    generator = generator_of(2)
    for side, scale in ((256, 1.0), (128, 0.5)):
        drawn = [draw_paste("scar", (side, side), 0.1, generator) for _ in range(1000)]
        lengths, widths = (np.array([parameters.size[axis] for parameters in drawn]) / scale for axis in (0, 1))
        assert (lengths.min(), lengths.max()) == pytest.approx((10, 25), abs=1.01)
        assert (widths.min(), widths.max()) == pytest.approx((2, 16), abs=1.01)
        angles = np.array([parameters.angle for parameters in drawn])
        assert -45 <= angles.min() < -40 < 40 < angles.max() <= 45


@pytest.mark.parametrize("kind", ["cut_paste", "scar"])
def test_everything_else_keeps_its_bits_and_what_is_pasted_comes_from_the_source(kind) -> None:
    image, generator = distinct_image(80, 90), generator_of(3)
    for _ in range(50):
        parameters = draw_paste(kind, (80, 90), 0.0, generator)
        pasted, mask = paste(image, parameters)
        assert torch.equal(pasted[:, ~mask], image[:, ~mask])
        (top, left), (height, width) = parameters.source, parameters.size
        source = image[:, top : top + height, left : left + width].flatten(1)
        assert set(pasted[0, mask].tolist()) <= set(source[0].tolist())
        assert mask.sum() == pytest.approx(height * width, rel=0.35, abs=6)


def test_a_scar_has_no_black_corners() -> None:
    image, generator = distinct_image(64, 64), generator_of(4)
    for _ in range(100):
        pasted, mask = paste(image, draw_paste("scar", (64, 64), 0.0, generator))
        assert pasted.min() >= 0.5
        assert mask.any()


def test_a_rectangle_is_pasted_anywhere_that_it_fits() -> None:
    generator = generator_of(5)
    covered = sum(
        paste(torch.zeros(3, 32, 32), draw_paste("cut_paste", (32, 32), 0, generator))[1] for _ in range(3000)
    )
    assert covered.min() > 0


def test_jitter_of_nothing_changes_nothing_and_grey_notices_brightness_and_contrast_only() -> None:
    image = torch.rand(1, 20, 20).expand(3, 20, 20).contiguous()
    assert torch.equal(jitter(image, (0.0, 0.0, 0.0, 0.0)), image)
    torch.testing.assert_close(jitter(image, (0.0, 0.0, 0.1, 0.1)), image, atol=1e-4, rtol=0)
    torch.testing.assert_close(jitter(image, (0.1, 0.0, 0.0, 0.0)), (1.1 * image).clamp(max=1))
    blended = (1.1 * image - 0.1 * image.mean()).clamp(0, 1)
    torch.testing.assert_close(jitter(image, (0.0, 0.1, 0.0, 0.0)), blended, atol=1e-5, rtol=0)


def test_colours_are_drawn_in_both_directions_up_to_the_strength() -> None:
    drawn = torch.tensor([draw_colour(0.1, generator) for generator in [generator_of(6)] for _ in range(500)])
    assert drawn.shape == (500, 4)
    assert -0.1 <= drawn.min() < -0.09
    assert 0.09 < drawn.max() <= 0.1


def test_augmentation_shifts_by_a_few_percent_and_reflects_the_edges() -> None:
    image, generator, shifts = distinct_image(100, 50), generator_of(7), set()
    for _ in range(60):
        shifted = augment(image, 0.0, 0.04, generator)
        assert set(shifted.flatten().tolist()) <= set(image.flatten().tolist())
        offset = int((image[0].flatten() - shifted[0, 50, 25]).abs().argmin())
        rows, columns = offset // 50 - 50, offset % 50 - 25
        shifts.add((rows, columns))
        inner = image[:, 10 + rows : 90 + rows, 5 + columns : 45 + columns]
        assert torch.equal(shifted[:, 10:90, 5:45], inner)
    assert {abs(rows) for rows, _ in shifts} == {0, 1, 2, 3, 4}
    assert {abs(columns) for _, columns in shifts} == {0, 1, 2}


def test_what_changes_nothing_is_drawn_again() -> None:
    image = torch.zeros(3, 64, 64)
    image[:, 20:60, 20:60] = distinct_image(40, 40)  # more than half of the image is black
    seen = [paste_visibly("scar", image, 0.0, generator_of(8, number)) for number in range(40)]
    assert all(visible and not torch.equal(pasted, image) for pasted, visible in seen)
    pasted, visible = paste_visibly("cut_paste", torch.full((3, 64, 64), 0.5), 0.0, generator_of(9))
    assert not visible
    assert torch.equal(pasted, torch.full((3, 64, 64), 0.5))


def test_draws_depend_on_the_generator_only() -> None:
    torch.manual_seed(1)
    first = draw_paste("scar", SIZE, 0.1, generator_of(10))
    torch.manual_seed(2)
    assert draw_paste("scar", SIZE, 0.1, generator_of(10)) == first
    assert draw_paste("scar", SIZE, 0.1, generator_of(11)) != first
