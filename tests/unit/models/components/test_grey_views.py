# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Moved views of grey images."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine

from anomalib_mediclip.models.components.grey_views import MoveRanges, draw_views, to_grey
from anomalib_mediclip.seeds import generator_of


@pytest.fixture
def images() -> torch.Tensor:
    noise = torch.rand(2, 1, 6, 8, generator=generator_of(0))
    return torch.nn.functional.interpolate(noise, (48, 64), mode="bicubic")


def test_grey_is_the_mean_of_the_channels() -> None:
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(to_grey(images)[:, 0], (images[:, 0] + images[:, 1] + images[:, 2]) / 3)


@pytest.mark.parametrize("ranges", [
    MoveRanges(angle=20), MoveRanges(vertical=0.2), MoveRanges(horizontal=0.2), MoveRanges(scale=0.2),
    MoveRanges(angle=10, scale=0.1),
])  # fmt: skip
def test_a_view_is_the_image_moved_as_by_torchvision(images, ranges) -> None:
    view = draw_views(images, 1, ranges, generator_of(1))[0]
    angle, down, right, growth = (2 * torch.rand(1, 4, generator=generator_of(1)) - 1)[0].tolist()
    moved = affine(
        images[0],
        angle=angle * ranges.angle,
        translate=[right * ranges.horizontal * 64, down * ranges.vertical * 48],
        scale=1 + growth * ranges.scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    inside = (slice(None), slice(16, 32), slice(20, 44))
    torch.testing.assert_close(view[inside], moved[inside], atol=0.02, rtol=0)
    assert (view - images[0])[inside].abs().max() > 0.05


def test_images_take_turns_and_each_view_is_moved_otherwise(images) -> None:
    views = draw_views(images, 5, MoveRanges(angle=30), generator_of(2))
    nearest = [min((0, 1), key=lambda number: (view - images[number]).abs().mean().item()) for view in views]
    assert nearest == [0, 1, 0, 1, 0]
    assert not torch.equal(views[0], views[2])


def test_the_border_is_continued() -> None:
    views = draw_views(torch.full((1, 1, 16, 16), 0.7), 4, MoveRanges(20, 0.3, 0.3, 0.2), generator_of(3))
    torch.testing.assert_close(views, torch.full_like(views, 0.7))
