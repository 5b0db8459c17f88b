# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What a step registers."""

from collections import Counter

import pytest
import torch

from anomalib_mediclip.models.reg_ad.episodes import draw_others, draw_support_episode


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(number: int) -> torch.Tensor:
    """Return constant images ``(number, 3, 8, 8)``, which no view changes: each shows its own number."""
    return (torch.arange(number) / number)[:, None, None, None].expand(number, 3, 8, 8).contiguous()


def numbers_of(images: torch.Tensor, number: int) -> torch.Tensor:
    return (images[..., 0, 4, 4] * number).round().long()


def test_others_are_different_and_never_the_query() -> None:
    source = generator()
    for own in range(5):
        drawn = [draw_others(5, own, 3, source).tolist() for _ in range(200)]
        assert all(len(set(others)) == 3 and own not in others for others in drawn)
        counts = Counter(number for others in drawn for number in others)
        assert set(counts) == set(range(5)) - {own}
        assert min(counts.values()) > 100  # 150 are expected of each


@pytest.mark.parametrize(("number", "shots", "expected"), [(1, 2, 1), (2, 2, 1), (3, 2, 2), (16, 2, 2), (4, 8, 3)])
def test_supports_are_other_images_as_many_as_there_are(number: int, shots: int, expected: int) -> None:
    queries, supports = draw_support_episode(numbered(number), 32, shots, ["rotate", "flip"], generator())
    assert queries.shape == (32, 3, 8, 8)
    assert supports.shape == (32, expected, 3, 8, 8)
    own, others = numbers_of(queries, number), numbers_of(supports, number)
    assert set(Counter(own.tolist()).values()) <= {32 // number, -(-32 // number)}
    if number > 1:
        assert not (own[:, None] == others).any()


def test_a_single_image_is_registered_with_another_view_of_itself() -> None:
    image = torch.rand(1, 3, 16, 16, generator=generator())
    queries, supports = draw_support_episode(image, 8, 2, ["rotate", "translate"], generator())
    assert ((queries - supports[:, 0]).abs().amax(dim=(1, 2, 3)) > 0.1).sum() >= 6


def test_more_support_images_than_queries() -> None:
    queries, _ = draw_support_episode(numbered(20), 8, 2, [], generator())
    assert len(set(numbers_of(queries, 20).tolist())) == 8


def test_draws_follow_from_the_generator() -> None:
    images = torch.rand(4, 3, 16, 16, generator=generator())
    first, second, other = (draw_support_episode(images, 6, 2, ["rotate"], generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])
