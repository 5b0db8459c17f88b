# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Discriminator of SQUID: whose statistics it takes, and its losses against sums."""

import math

import pytest
import torch

from anomalib_mediclip.models.squid.discriminator import Discriminator
from anomalib_mediclip.models.squid.loss import discriminator_loss, generator_loss
from anomalib_mediclip.models.squid.torch_model import Generated


def some_discriminator() -> Discriminator:
    """Return a discriminator with running statistics that are not those of the start."""
    discriminator = Discriminator((64, 64)).double().train()
    with torch.no_grad():
        for _ in range(20):
            discriminator(0.2 + 0.3 * torch.rand(4, 1, 64, 64, dtype=torch.float64))
        for norm in discriminator.norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
    return discriminator.eval()


def test_an_image_is_judged_alike_alone_and_in_any_batch() -> None:
    discriminator = some_discriminator()
    images = torch.rand(5, 1, 64, 64, dtype=torch.float64) * torch.rand(5, 1, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        together = discriminator(images)
        alone = torch.cat([discriminator(image[None]) for image in images])
    assert together.std() > 0
    torch.testing.assert_close(alone, together)


def test_the_judgement_is_that_of_the_official_code_which_stays_in_training_mode() -> None:
    discriminator = some_discriminator()
    images = torch.rand(3, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        found = discriminator(images)
        official = torch.cat([discriminator.train()(image[None]) for image in images])
    torch.testing.assert_close(found, official)


def test_running_statistics_can_be_had_for_a_comparison_and_give_another_score() -> None:
    discriminator = some_discriminator()
    images = torch.rand(3, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        per_image = discriminator(images)
        discriminator.per_image = False
        running = discriminator(images)
        for norm in discriminator.norms:  # the same, once the running statistics are those of the one image
            norm.momentum = 1.0
        discriminator.train()(images[:1])
        alone = discriminator.eval()(images[:1])
    assert not torch.allclose(per_image, running)
    # running variances are divided by one less; the last map has four positions
    for norm, positions in zip(discriminator.norms, (256, 64, 16, 4), strict=True):
        norm.running_var *= (positions - 1) / positions
    with torch.no_grad():
        exact = discriminator(images[:1])
    assert not torch.allclose(alone, exact)
    torch.testing.assert_close(exact, per_image[:1])


def test_evaluation_changes_no_statistics() -> None:
    discriminator = some_discriminator()
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    discriminator(torch.rand(2, 1, 64, 64, dtype=torch.float64))
    assert all(torch.equal(before[name], value) for name, value in discriminator.state_dict().items())


def test_the_loss_of_the_discriminator_is_the_weighted_cross_entropy() -> None:
    real, reconstructed = [-1.3, 0.2, 4.0], [0.7, -2.0, 0.0]

    def probability(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    expected = -sum(math.log(probability(logit)) for logit in real) / 3
    expected -= sum(math.log(1 - probability(logit)) for logit in reconstructed) / 3
    found = discriminator_loss(torch.tensor(real), torch.tensor(reconstructed))
    assert found.item() == pytest.approx(0.005 * expected)


def test_the_loss_of_the_generator_is_the_weighted_sum_of_four_terms() -> None:
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=generator)

    shapes = [(8, 8, 4, 4), (8, 4, 8, 8), (2, 2, 32, 32), (2, 1, 64, 64)]
    images, realness = some(2, 1, 64, 64), some(2) - 0.5
    generated = Generated(some(2, 1, 64, 64), some(2, 1, 64, 64), *([some(*s) for s in shapes] for _ in "st"), some(2))

    def squared(one: torch.Tensor, other: torch.Tensor) -> float:
        return ((one - other) ** 2).sum().item() / one.numel()

    levels = zip(generated.student_levels, generated.teacher_levels, strict=True)
    expected = 10 * squared(generated.student, images) + 0.01 * squared(generated.teacher, images)
    expected += 0.001 * sum(squared(*pair) for pair in levels)
    expected += 0.005 * sum(-math.log(1 / (1 + math.exp(-logit))) for logit in realness.tolist()) / 2
    assert generator_loss(images, generated, realness).item() == pytest.approx(expected)


def test_an_adversarial_loss_that_is_lost_stays_finite_and_has_a_gradient() -> None:
    realness = torch.tensor([-1e4], requires_grad=True)
    images = torch.zeros(1, 1, 8, 8)
    loss = generator_loss(images, Generated(images, images, [], [], images), realness)
    loss.backward()
    assert loss.item() == pytest.approx(50.0)
    assert realness.grad.item() == pytest.approx(-0.005)
