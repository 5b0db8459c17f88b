# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The 22 views: their angles, their pixels, and views drawn from their ranges."""

import math
from collections import Counter

import pytest
import torch

from anomalib_mediclip.models.reg_ad.views import View, draw_view, fixed_views, make_views

ALL = ("rotate", "translate", "flip", "grey", "rotate90")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dot(row: float, column: float, height: int = 64, width: int = 64) -> torch.Tensor:
    """Return a grey image ``(1, 3, height, width)`` with a soft dot."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    spot = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18)
    return spot.expand(1, 3, height, width).contiguous()


def centre(image: torch.Tensor) -> tuple[float, float]:
    """Return row and column of the centre of mass of a dark image with a dot."""
    weights = image[0, 0].double()
    rows, columns = torch.arange(weights.shape[0])[:, None], torch.arange(weights.shape[1])[None]
    return (weights * rows).sum().item() / weights.sum().item(), (weights * columns).sum().item() / weights.sum().item()


def test_there_are_22_views_and_the_first_is_the_image_itself() -> None:
    views = fixed_views(ALL)
    assert Counter(view.kind for view in views) == {
        "": 1,
        "rotate": 8,
        "translate": 8,
        "flip": 1,
        "grey": 1,
        "rotate90": 3,
    }
    image = random(1, 3, 32, 32)
    torch.testing.assert_close(make_views(image, views[:1]), image, atol=1e-5, rtol=0)
    assert views[0] == View()


def test_angles_are_multiples_of_pi_over_16_and_shifts_of_a_tenth_of_the_grid() -> None:
    views = fixed_views(ALL)
    angles = sorted(round(view.angle * 16 / math.pi, 6) for view in views if view.kind == "rotate")
    assert angles == [-4, -3, -2, -1, 1, 2, 3, 4]
    shifts = {tuple(round(10 * part, 6) for part in view.shift) for view in views if view.kind == "translate"}
    assert shifts == {(x * size, y * size) for size in (1, 2) for x in (-1, 1) for y in (-1, 1)}
    assert [round(view.angle * 2 / math.pi, 6) for view in views if view.kind == "rotate90"] == [1, 2, 3]


def test_chosen_kinds_only_and_an_unknown_one_is_named() -> None:
    assert [view.kind for view in fixed_views(["grey", "flip"])] == ["", "flip", "grey"]
    assert fixed_views([]) == [View()]
    with pytest.raises(ValueError, match=r"there is no 'zoom'; name some of rotate, translate"):
        fixed_views(["flip", "zoom"])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_and_flips_move_whole_pixels(quarters: int) -> None:
    image = random(1, 3, 48, 48)
    view = [view for view in fixed_views(["rotate90"]) if view.kind][quarters - 1]
    torch.testing.assert_close(make_views(image, [view]), torch.rot90(image, quarters, (2, 3)), atol=1e-4, rtol=0)
    flipped = make_views(image, [View("flip", flip=True)])
    torch.testing.assert_close(flipped, image.flip(3), atol=1e-4, rtol=0)


def test_a_shift_of_0_2_moves_a_dot_by_a_tenth_of_the_side() -> None:
    moved = make_views(dot(20, 40, 64, 96), [View("translate", shift=(0.2, -0.2))])
    row, column = centre(moved)
    assert row == pytest.approx(20 + 6.4, abs=0.02)
    assert column == pytest.approx(40 - 9.6, abs=0.02)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_angles_are_angles_in_pixels_whatever_the_sides(size: tuple[int, int]) -> None:
    height, width = size
    angle, radius = math.pi / 8, 15.0
    middle = (height - 1) / 2, (width - 1) / 2
    row, column = centre(make_views(dot(middle[0], middle[1] + radius, *size), [View("rotate", angle=angle)]))
    assert math.hypot(row - middle[0], column - middle[1]) == pytest.approx(radius, abs=0.05)
    assert abs(math.atan2(row - middle[0], column - middle[1])) == pytest.approx(angle, abs=0.01)


def test_edges_are_reflected_so_that_no_corner_is_black() -> None:
    white = torch.ones(22, 3, 20, 30)
    torch.testing.assert_close(make_views(white, fixed_views(ALL)), white)
    moved = make_views(random(22, 3, 20, 20), fixed_views(ALL))
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_grey_takes_colours_away_and_leaves_grey_images_alone() -> None:
    colours = random(1, 3, 8, 8)
    grey = make_views(colours, [View("grey", grey=True)])
    expected = 0.299 * colours[:, 0] + 0.587 * colours[:, 1] + 0.114 * colours[:, 2]
    for channel in range(3):
        torch.testing.assert_close(grey[:, channel], expected, atol=1e-5, rtol=0)
    image = random(1, 1, 8, 8).expand(1, 3, 8, 8)
    torch.testing.assert_close(make_views(image, [View("grey", grey=True)]), image, atol=1e-5, rtol=0)


def test_each_image_gets_its_own_view() -> None:
    images, views = random(3, 3, 16, 16), [View(), View("flip", flip=True), View("grey", grey=True)]
    together = make_views(images, views)
    for number, view in enumerate(views):
        torch.testing.assert_close(together[[number]], make_views(images[[number]], [view]))


def test_drawn_views_have_the_kinds_in_their_shares_and_stay_in_their_ranges() -> None:
    generator = torch.Generator().manual_seed(0)
    views = [draw_view(ALL, generator) for _ in range(4400)]
    shares = Counter(view.kind for view in views)
    for kind, number in {"": 1, "rotate": 8, "translate": 8, "flip": 1, "grey": 1, "rotate90": 3}.items():
        assert shares[kind] == pytest.approx(200 * number, abs=60 * math.sqrt(number))
    angles = torch.tensor([view.angle for view in views if view.kind == "rotate"])
    assert angles.abs().max() <= math.pi / 4
    assert angles.std() == pytest.approx(math.pi / 4 / math.sqrt(3), rel=0.05)
    shifts = torch.tensor([view.shift for view in views if view.kind == "translate"])
    assert shifts.abs().max() <= 0.2
    assert shifts.std(dim=0).tolist() == pytest.approx([0.2 / math.sqrt(3)] * 2, rel=0.05)
    assert abs(torch.corrcoef(shifts.T)[0, 1]) < 0.1


def test_only_chosen_kinds_are_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    assert {draw_view(["flip"], generator).kind for _ in range(50)} == {"", "flip"}
    assert draw_view([], generator) == View()
