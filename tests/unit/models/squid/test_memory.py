# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Queues, shrinkage, decoder memories and the masked shortcut of SQUID, against loops."""

import math

import pytest
import torch

from anomalib_mediclip.models.squid.memory import DecoderMemory, MemoryQueues, read, shrink, take_shortcut


def mixture(query: torch.Tensor, slots: torch.Tensor, top_k: int) -> torch.Tensor:
    """Return the answer to one query, by its definition."""
    products = [sum(q * s for q, s in zip(query.tolist(), slot, strict=True)) for slot in slots.tolist()]
    best = sorted(range(len(products)), key=lambda index: -products[index])[:top_k]
    weights = {index: math.exp(products[index]) for index in best}
    return sum(weight / sum(weights.values()) * slots[index] for index, weight in weights.items())


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [
        (1, [1, 0, 0, 0, 0, 0]),
        (2, [0.7311, 0.2689, 0, 0, 0, 0]),
        (3, [0.6652, 0.2447, 0.0900, 0, 0, 0]),
        (9, [0.6337, 0.2331, 0.0858, 0.0315, 0.0116, 0.0043]),
    ],
)
def test_the_best_slots_share_the_weight(top_k, expected) -> None:
    found = shrink(torch.tensor([3.0, 2, 1, 0, -1, -2]), top_k)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("top_k", [1, 4])
def test_weights_sum_to_one_also_for_ties_and_for_large_similarities(top_k) -> None:
    for similarities in (100 * torch.randn(5, 20), torch.zeros(5, 20), torch.full((5, 20), 1e4)):
        weights = shrink(similarities, top_k)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(5))
        assert ((weights > 0).sum(dim=-1) <= top_k).all()


def test_the_gradient_is_that_of_the_softmax() -> None:
    similarities, direction = torch.randn(3, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    gradients = []
    for function in (lambda values: shrink(values, 2), lambda values: values.softmax(dim=-1)):
        values = similarities.clone().requires_grad_()
        (function(values) * direction).sum().backward()
        gradients.append(values.grad)
    assert gradients[0].abs().min() > 0  # also where the weight is 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_values_with_and_without_gradients_are_the_same() -> None:
    similarities = torch.randn(4, 9)
    torch.testing.assert_close(shrink(similarities.clone().requires_grad_(), 3).detach(), shrink(similarities, 3))


def test_answers_are_mixtures_of_the_best_slots_of_the_same_place() -> None:
    queries, slots = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(4, 11, 5, dtype=torch.float64)
    found = read(queries, slots, 3)
    for image in range(3):
        for place in range(4):
            torch.testing.assert_close(found[image, place], mixture(queries[image, place], slots[place], 3))


def test_a_memory_of_equal_slots_answers_with_them() -> None:
    queues, value = MemoryQueues(slots=12, dim=6, top_k=4), torch.randn(6)
    queues.slots.copy_(value.expand_as(queues.slots))
    torch.testing.assert_close(queues(torch.randn(2, 4, 6)), value.expand(2, 4, 6))


def test_slots_are_drawn_by_their_width_and_are_no_parameters() -> None:
    queues = MemoryQueues(slots=200, dim=64, top_k=4)
    assert not list(queues.parameters())
    assert queues.slots.shape == (4, 200, 64)
    assert 0.12 < queues.slots.max() <= 0.125
    assert -0.125 <= queues.slots.min() < -0.12
    assert queues.slots.mean().abs() < 0.001


def test_the_oldest_features_are_replaced_first() -> None:
    queues = MemoryQueues(slots=10, dim=1, top_k=1)
    for value in (1.0, 2.0, 3.0, 4.0):
        queues.update(torch.full((3, 4, 1), value))
    assert queues.slots[:, :, 0].tolist() == [[4, 4, 1, 2, 2, 2, 3, 3, 3, 4]] * 4
    assert queues.pointer.item() == 2


def test_features_keep_their_order_around_the_end() -> None:
    queues, fed = MemoryQueues(slots=7, dim=1, top_k=1), []
    for number in (3, 5, 1, 4, 6):
        new = [float(len(fed) + index) for index in range(number)]
        fed += new
        queues.update(torch.tensor(new)[:, None, None].expand(number, 4, 1))
    kept = {index % 7: value for index, value in enumerate(fed)}
    assert queues.slots[2, :, 0].tolist() == [kept[index] for index in range(7)]
    assert queues.pointer.item() == len(fed) % 7


def test_of_a_batch_that_is_larger_than_the_queue_the_last_features_are_kept() -> None:
    queues = MemoryQueues(slots=5, dim=1, top_k=1)
    queues.update(torch.arange(13.0)[:, None, None].expand(13, 4, 1))
    assert sorted(queues.slots[0, :, 0].tolist()) == [8, 9, 10, 11, 12]
    queues.update(torch.full((1, 4, 1), 99.0))
    assert sorted(queues.slots[0, :, 0].tolist()) == [9, 10, 11, 12, 99]  # the oldest one went


def test_the_pointer_survives_saving_and_loading() -> None:
    queues, loaded = MemoryQueues(slots=10, dim=2, top_k=1), MemoryQueues(slots=10, dim=2, top_k=1)
    queues.update(torch.rand(7, 4, 2))
    loaded.load_state_dict(queues.state_dict())
    more = torch.rand(5, 4, 2)
    queues.update(more)
    loaded.update(more)
    assert loaded.pointer.item() == 2
    assert torch.equal(loaded.slots, queues.slots)


def test_each_place_fills_and_reads_a_queue_of_its_own() -> None:
    queues = MemoryQueues(slots=3, dim=2, top_k=2)
    markers = torch.arange(1.0, 5.0)[None, :, None].expand(3, 4, 2)
    queues.update(markers)
    for place in range(4):
        assert queues.slots[place].unique().tolist() == [place + 1]
    torch.testing.assert_close(queues(torch.randn(1, 4, 2)), markers[:1])


def test_queries_get_gradients_and_are_stored_without() -> None:
    queues, queries = MemoryQueues(slots=5, dim=3, top_k=2), torch.randn(2, 4, 3, requires_grad=True)
    queues(queries).square().sum().backward()
    assert queries.grad.abs().sum() > 0
    queues.update(queries)
    assert not queues.slots.requires_grad


@pytest.mark.parametrize("size", [(4, 4), (2, 6)])
def test_a_decoder_memory_answers_for_each_quarter_of_each_patch(size) -> None:
    height, width = size
    memory = DecoderMemory(3, size, slots=9, top_k=2, shortcut=0.95).double()
    features = torch.randn(5, 3, *size, dtype=torch.float64)
    found = memory(features)
    for number in range(5):
        for quarter, (top, left) in enumerate(((0, 0), (0, width // 2), (height // 2, 0), (height // 2, width // 2))):
            area = (number, slice(None), slice(top, top + height // 2), slice(left, left + width // 2))
            expected = mixture(features[area].flatten(), memory.slots[quarter].detach(), 2)
            torch.testing.assert_close(found[area].flatten(), expected)


def test_the_slots_of_a_decoder_memory_learn() -> None:
    memory = DecoderMemory(2, (4, 4), slots=6, top_k=2, shortcut=1.0)
    memory(torch.randn(3, 2, 4, 4)).square().sum().backward()
    assert (memory.slots.grad.abs().sum(dim=2) > 0).all()  # also those that were not read: by the softmax


def test_a_decoder_memory_takes_its_shortcut_in_training_only() -> None:
    features = torch.randn(3, 2, 4, 4)
    memory = DecoderMemory(2, (4, 4), slots=6, top_k=2, shortcut=0.0)
    assert torch.equal(memory(features, torch.Generator()), features)
    assert not (memory(features) == features).any()


def test_the_shortcut_leaves_a_share_of_the_positions_with_all_their_channels() -> None:
    replaced, original = torch.ones(50, 3, 20, 20), torch.zeros(50, 3, 20, 20)
    found = take_shortcut(replaced, original, 0.95, torch.Generator().manual_seed(0))
    assert found.mean().item() == pytest.approx(0.95, abs=0.005)  # 20,000 positions
    assert torch.equal(found.amin(dim=1), found.amax(dim=1))
    assert len({tuple(mask.flatten().tolist()) for mask in found[:, 0]}) == 50  # each map has positions of its own
    again = take_shortcut(replaced, original, 0.95, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)
    for share in (0.0, 1.0):
        assert take_shortcut(replaced, original, share, torch.Generator()).unique().tolist() == [share]
    assert take_shortcut(replaced, original, 0.0, None) is replaced
