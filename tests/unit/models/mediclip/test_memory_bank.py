# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Memory bank: exact distances, the support set's own statistics, and support sets that have none."""

import pytest
import torch
from torch.nn import functional

from anomalib_mediclip.models.mediclip import memory_bank
from anomalib_mediclip.models.mediclip.memory_bank import MemoryBank, local_features

SIZE = (224, 224)


def random_features(images: int, seed: int = 0) -> list[torch.Tensor]:
    """Patch features of a lite encoder's first two blocks, at strides 8 and 16."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, 6, 28, 28, generator=generator), torch.randn(images, 10, 14, 14, generator=generator)]


def filled(*portions: list[torch.Tensor]) -> MemoryBank:
    bank = MemoryBank()
    bank.remember(portions, SIZE, names_of(sum(len(portion[0]) for portion in portions)))
    return bank


def names_of(images: int) -> list[str]:
    return [f"{number}.png" for number in range(images)]


def nearest(image: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Distances by brute force: from each patch of ``(C, h, w)`` to the nearest patch of ``(N, C, h, w)``."""
    return torch.cdist(image.flatten(1).T, others.flatten(2).transpose(1, 2).flatten(0, 1)).amin(dim=1)


def test_z_scores_are_those_of_leave_one_out_distances() -> None:
    support, new = random_features(4), random_features(2, seed=1)
    local = local_features(support, SIZE)
    own = torch.stack([nearest(local[i], local[[j for j in range(4) if j != i]]) for i in range(4)])
    distances = torch.stack([nearest(image, local) for image in local_features(new, SIZE)])
    expected = (distances - own.mean()) / own.std(correction=0)
    z = filled(support)(new, SIZE)
    assert z.shape == (2, 1, 14, 14)
    torch.testing.assert_close(z.flatten(1), expected, rtol=1e-4, atol=1e-4)


def test_local_features_lie_on_the_coarse_grid_and_have_unit_length_per_block() -> None:
    fine, coarse = random_features(1)
    local = local_features([7 * fine, 0.1 * coarse], SIZE)
    assert local.shape == (1, 16, 14, 14)
    # patch (3, 5) of the coarse grid covers rows 6, 7 and columns 10, 11 of the fine one
    average = fine[0, :, 6:8, 10:12].mean(dim=(1, 2))
    torch.testing.assert_close(local[0, :6, 3, 5], functional.normalize(average, dim=0))
    torch.testing.assert_close(local[0, 6:, 3, 5], functional.normalize(coarse[0, :, 3, 5], dim=0))


def test_blocks_with_large_patches_are_left_out() -> None:
    fine, coarse = random_features(1)
    too_coarse = torch.randn(1, 20, 7, 7)
    assert torch.equal(local_features([fine, coarse, too_coarse], SIZE), local_features([fine, coarse], SIZE))
    assert local_features([too_coarse], SIZE).shape == (1, 20, 7, 7)  # unless there is nothing else


def test_named_support_images_are_compared_with_the_others() -> None:
    support = random_features(4)
    bank = filled(support)
    z = bank(support, SIZE, names_of(4))
    assert z.mean().item() == pytest.approx(0, abs=1e-4)
    assert z.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(bank(support, SIZE, ["a", "b", "c", "d"]), bank(support, SIZE))
    swapped = [block.flip(0) for block in support]
    assert torch.equal(bank(swapped, SIZE, names_of(4)[::-1]), z.flip(0))


def test_a_copy_of_an_image_is_not_compared_with_that_image() -> None:
    support = random_features(3)
    bank = filled(support, [block[:1] for block in support])
    first = [block[:1] for block in support]
    assert torch.equal(bank(first, SIZE, ["3.png"]), bank(first, SIZE, ["0.png"]))
    assert torch.equal(bank(first, SIZE, ["3.png"]), filled(support)(first, SIZE, ["0.png"]))


def test_support_images_are_nearest_to_themselves() -> None:
    support = random_features(3)
    z = filled(support)(support, SIZE)
    assert z.max() < filled(support)(random_features(3, seed=1), SIZE).min()


def test_it_does_not_matter_how_many_images_are_encoded_at_a_time() -> None:
    support = random_features(5)
    whole, parts = filled(support), filled([b[:2] for b in support], [b[2:] for b in support])
    assert torch.equal(whole.patches, parts.patches)
    assert torch.equal(whole.moments, parts.moments)


def test_copies_of_an_image_change_nothing() -> None:
    support = random_features(3)
    assert torch.equal(filled(support).moments, filled(support, [b[:1] for b in support]).moments)


@pytest.mark.parametrize(
    "support",
    [
        random_features(1),
        [block.repeat(4, 1, 1, 1) for block in random_features(1)],
        [torch.ones_like(block) for block in random_features(2)],
        [torch.zeros_like(block) for block in random_features(2)],
        [torch.randn(1, 6, 2, 2)],
    ],
    ids=["one image", "copies of one image", "constant images", "no features", "all patches are nearby"],
)
def test_without_other_images_scores_are_finite_and_tell_new_patches(support: list[torch.Tensor]) -> None:
    bank = filled(support)
    new = [torch.randn(2, *block.shape[1:], generator=torch.Generator().manual_seed(5)) for block in support]
    known, other = bank(support, SIZE, names_of(len(support[0]))), bank(new, SIZE)
    assert known.isfinite().all()
    assert other.isfinite().all()
    assert other.mean() > bank(support, SIZE).mean()


def test_a_large_bank_is_a_coreset_that_leaves_no_patch_far(monkeypatch) -> None:
    support = random_features(6)
    monkeypatch.setattr(memory_bank, "LARGEST_BANK", 300 * 16)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    bank = filled(support)
    assert torch.equal(torch.rand(3), expected)  # the global generator is left alone
    assert bank.patches.shape == (300, 16)
    assert torch.equal(bank.patches, filled(support).patches)
    everything = local_features(support, SIZE).flatten(2).transpose(1, 2).flatten(0, 1)
    farthest = torch.cdist(everything, bank.patches).amin(dim=1).max()
    at_random = torch.cdist(everything, everything[torch.randperm(len(everything))[:300]]).amin(dim=1).max()
    assert farthest < at_random
    assert bank(random_features(2, seed=1), SIZE).mean().abs() < 2  # own distances are those to the coreset


def test_an_empty_bank_says_so() -> None:
    with pytest.raises(RuntimeError, match="memory bank is empty: train the model or load a checkpoint"):
        MemoryBank()(random_features(1), SIZE)


def test_a_bank_of_another_size_is_loaded() -> None:
    bank, other = filled(random_features(3)), MemoryBank()
    other.load_state_dict(bank.state_dict())
    new = random_features(1, seed=1)
    assert torch.equal(bank(new, SIZE), other(new, SIZE))


def portion(features: list[torch.Tensor], start: int, end: int) -> list[torch.Tensor]:
    return [block[start:end] for block in features]


@pytest.mark.parametrize("copies", [False, True])
def test_images_added_later_make_the_bank_of_all_images(copies: bool) -> None:
    features, names = random_features(6), names_of(6)
    if copies:
        features = [torch.cat([block[:5], block[4:5]]) for block in features]
    bank = filled(portion(features, 0, 3))
    bank.add([portion(features, 3, 6)], SIZE, names[3:])
    together = filled(features)
    for content in MemoryBank.CONTENT:
        assert torch.equal(getattr(bank, content), getattr(together, content)), content
    torch.testing.assert_close(bank(features, SIZE, names), together(features, SIZE, names))


def test_with_a_coreset_the_moments_of_both_are_pooled(monkeypatch) -> None:
    features = random_features(8)
    monkeypatch.setattr(memory_bank, "LARGEST_BANK", 16 * 300)
    bank = filled(portion(features, 0, 6))
    before = bank.moments
    bank.add([portion(features, 6, 8)], SIZE, names_of(8)[6:])
    assert len(bank.patches) == 300
    assert bank.numbers.max() >= 6 * 196
    added = torch.stack(
        [bank._distances(local_features(portion(features, i, i + 1), SIZE), torch.tensor([i])) for i in (6, 7)]
    )
    torch.testing.assert_close(bank.moments[0], 0.75 * before[0] + 0.25 * added.mean())


def test_pooled_moments_are_those_of_all_values() -> None:
    some, others = torch.randn(40), 3 + 2 * torch.randn(20)
    pooled = memory_bank.pooled_moments(memory_bank.moments_of(some), 4, memory_bank.moments_of(others), 2)
    torch.testing.assert_close(pooled, memory_bank.moments_of(torch.cat([some, others])))


@pytest.mark.parametrize("largest", [2_000_000, 16 * 100])
def test_images_that_the_bank_holds_are_recognised(monkeypatch, largest: int) -> None:
    monkeypatch.setattr(memory_bank, "LARGEST_BANK", largest)
    features = random_features(4)
    bank, noise = filled(portion(features, 0, 3)), 1e-3 * torch.randn(4, 1, 1, 1)
    assert bank.holds([block + noise for block in features], SIZE).tolist() == [True, True, True, False]
    turned = [block.flip(3) for block in features]
    assert bank.holds(turned, SIZE).tolist() == [False] * 4
