# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""SQUID as a whole: who learns from what, the scale of the support set, options without meaning, overfitting."""

import math

import pytest
import torch
from torch.nn import functional

from anomalib_mediclip import SQUID, SQUIDModel
from anomalib_mediclip.models.components.grey_views import draw_views
from anomalib_mediclip.models.squid.anomaly_map import mean_and_deviation
from anomalib_mediclip.models.squid.loss import discriminator_loss, generator_loss
from anomalib_mediclip.models.squid.torch_model import MOVES
from anomalib_mediclip.seeds import generator_of

TINY = {"image_size": (64, 64), "width": 4, "slots": 10}


def fitted(images: torch.Tensor, **options) -> SQUIDModel:
    model = SQUIDModel(**{**TINY, **options}).eval()
    with torch.no_grad():
        model.fit(images, seed=0)
    return model


def gradients(model: SQUIDModel, loss: torch.Tensor) -> dict[str, bool]:
    """Tell for each part of the model whether a loss trains it."""
    model.zero_grad()
    loss.backward()
    parts: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        parts[part] = parts.get(part, False) or (parameter.grad is not None and bool(parameter.grad.any()))
    return parts


def test_the_teacher_does_not_train_the_encoder() -> None:
    model = SQUIDModel(**TINY).train()
    teacher = model.generate(torch.rand(2, 1, 64, 64), torch.Generator()).teacher
    trained = gradients(model, functional.mse_loss(teacher, torch.rand(2, 1, 64, 64)))
    assert {part for part, has in trained.items() if has} == {"teacher"}


def test_distillation_trains_encoder_and_student_through_the_student_alone() -> None:
    model = SQUIDModel(**TINY).train()
    images = torch.rand(2, 1, 64, 64)

    def distillation(hold: str) -> torch.Tensor:
        generated = model.generate(images, torch.Generator().manual_seed(0))
        levels = {"student": generated.student_levels, "teacher": generated.teacher_levels}
        levels[hold] = [level.detach() for level in levels[hold]]
        return sum(functional.mse_loss(*pair) for pair in zip(levels["student"], levels["teacher"], strict=True))

    through_teacher = gradients(model, distillation("student"))
    assert {part for part, has in through_teacher.items() if has} == {"teacher"}
    through_student = gradients(model, distillation("teacher"))
    assert {part for part, has in through_student.items() if has} == {"encoder", "inpainting", "student"}


def test_the_adversarial_loss_trains_the_generator_through_the_discriminator() -> None:
    model = SQUIDModel(**TINY).train()
    model.discriminator.requires_grad_(False)
    generated = model.generate(torch.rand(2, 1, 64, 64), torch.Generator())
    trained = gradients(model, -model.discriminator(generated.student).mean())
    assert {part for part, has in trained.items() if has} == {"encoder", "inpainting", "student"}


def test_what_trains_the_discriminator_and_what_trains_the_generator_is_the_same_image() -> None:
    model, images = SQUIDModel(**TINY).train(), torch.rand(2, 1, 64, 64)
    first = model.imitate(images, torch.Generator().manual_seed(3))
    second = model.generate(images, torch.Generator().manual_seed(3)).student
    torch.testing.assert_close(first, second)
    other = model.imitate(images, torch.Generator().manual_seed(4))
    assert not torch.allclose(first, other)  # other shortcuts


@pytest.mark.parametrize(("number", "views"), [(1, 64), (3, 22), (40, 2)])
def test_the_scale_is_that_of_each_image_and_its_views(number, views) -> None:
    images = torch.rand(number, 3, 64, 64)
    model = SQUIDModel(**TINY).eval()
    passes: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0]))
    with torch.no_grad():
        model.fit(images, seed=5)
    assert sum(len(patches) for patches in passes) == 4 * number * views
    grey = images.mean(dim=1, keepdim=True)
    realness, errors = [], []
    for index in range(number):
        moved = draw_views(grey[[index]], views - 1, MOVES, generator_of(5, index))
        for view in [grey[index], *moved]:
            with torch.no_grad():
                reconstruction = model.imitate(view[None])
                realness.append(model.discriminator(reconstruction).item())
                blurred = model.anomaly_map_generator.smooth((view[None] - reconstruction).abs())
            errors.append(blurred.flatten().double())
    mean = sum(realness) / len(realness)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in realness) / (len(realness) - 1))
    assert model.statistics.realness.tolist() == pytest.approx([mean, deviation], rel=1e-3, abs=1e-6)
    pixels = torch.cat(errors)
    assert model.statistics.error.tolist() == pytest.approx([pixels.mean().item(), pixels.std().item()], rel=1e-3)


def test_scores_and_maps_are_standardised_and_unreal_images_score_high() -> None:
    model = fitted(torch.rand(2, 3, 64, 64))
    model.statistics.realness, model.statistics.error = torch.tensor([3.0, 0.5]), torch.tensor([0.2, 0.1])
    realness, errors = torch.tensor([3.0, 2.0]), torch.full((2, 1, 64, 64), 0.5)
    predictions = model.anomaly_map_generator(realness, errors, model.statistics)
    torch.testing.assert_close(predictions.pred_score, torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(predictions.anomaly_map, torch.full((2, 1, 64, 64), 3.0))
    # 1 - sigmoid((D - m) / s), as in the official code
    torch.testing.assert_close(predictions.pred_score.sigmoid(), 1 - ((realness - 3) / 0.5).sigmoid())


def test_the_deviation_of_equal_numbers_and_of_a_single_one() -> None:
    assert mean_and_deviation(torch.full((5,), 2.0)).tolist() == pytest.approx([2, 1e-6])
    assert mean_and_deviation(torch.tensor([2.0])).tolist() == [2, 1]


def test_an_image_is_scored_alike_alone_and_in_a_batch_and_its_number_does_not_matter() -> None:
    """In float64: the realness of an untrained network's images differs by little more than float32 rounds."""
    model, images = SQUIDModel(**TINY).double().eval(), torch.rand(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        model.fit(torch.rand(2, 3, 64, 64, dtype=torch.float64), seed=0)
        together = model(images)
        alone = [model(image[None]) for image in images]
        own = model(images, torch.tensor([0, 1, -1]))
    torch.testing.assert_close(torch.cat([one.pred_score for one in alone]), together.pred_score)
    torch.testing.assert_close(torch.cat([one.anomaly_map for one in alone]), together.anomaly_map)
    assert torch.equal(own.pred_score, together.pred_score)
    assert torch.equal(own.anomaly_map, together.anomaly_map)


def test_colours_do_not_matter_but_their_mean() -> None:
    model, images = SQUIDModel(**TINY).double().eval(), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        found = model.reconstruct(images)
        grey = model.reconstruct(images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1))
        other = model.reconstruct(images.flip(0))
    assert (found - grey).abs().max() < 1e-12
    assert (found - other).abs().max() > 1e-8  # little: an untrained memory answers nearly alike to all images


def test_nothing_is_drawn_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    model = SQUIDModel(**TINY, seed=3)
    model.train().generate(torch.rand(2, 1, 64, 64, generator=torch.Generator()), torch.Generator())
    with torch.no_grad():
        model.eval().fit(torch.rand(2, 3, 64, 64, generator=torch.Generator()), seed=0)
        model(torch.rand(1, 3, 64, 64, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)
    again, other = SQUIDModel(**TINY, seed=3), SQUIDModel(**TINY, seed=4)
    assert torch.equal(again.inpainting.queues.slots, SQUIDModel(**TINY, seed=3).inpainting.queues.slots)
    assert not torch.equal(again.encoder.input.first[0].weight, other.encoder.input.first[0].weight)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_of_one_colour_have_finite_scores_and_losses(value) -> None:
    model, images = SQUIDModel(**TINY).train(), torch.full((2, 1, 64, 64), value)
    generated = model.generate(images, torch.Generator())
    judged = model.discriminator(images), model.discriminator(generated.student)
    loss = generator_loss(images, generated, judged[1]) + discriminator_loss(*judged)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        model.eval().fit(images.expand(-1, 3, -1, -1), seed=0)
        predictions = model(images.expand(-1, 3, -1, -1))
    assert predictions.pred_score.isfinite().all()
    assert predictions.anomaly_map.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (100, 128)}, r"image_size=\(100, 128\).*Use \(96, 128\) or \(128, 128\)"),
        ({"image_size": (32, 64)}, r"at least 64.*Use \(64, 64\)\."),
        ({"image_size": (224, 225)}, r"Use \(224, 224\) or \(224, 256\)"),
        ({"width": 5}, "width=5: it must be even"),
        ({"top_k": 0}, "at least one slot must answer"),
        ({"top_k": 11}, r"top_k=11, slots=10.*not more than there are"),
        ({"shortcut": 1.1}, r"shortcut=1\.1.*must lie in \[0, 1\]"),
        ({"views": 0}, "there must be a view"),
    ],
)
def test_options_without_meaning_are_refused_with_the_cure(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        SQUID(**{**TINY, **options})


def test_a_model_without_a_scale_says_so() -> None:
    with pytest.raises(RuntimeError, match="There is no scale of normal images"):
        SQUIDModel(**TINY).eval()(torch.rand(1, 3, 64, 64))


@pytest.mark.slow
def test_four_images_are_learnt_by_heart_and_a_disc_stands_out() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 1, 8, 8, generator=generator)
    images = functional.interpolate(coarse, (64, 64), mode="bilinear")
    model = SQUIDModel((64, 64), 8, 50).train()
    others = [p for name, p in model.named_parameters() if not name.startswith("discriminator.")]
    optimizer = torch.optim.Adam(others, lr=3e-3, betas=(0.5, 0.999), eps=1e-7)
    judge = torch.optim.Adam(model.discriminator.parameters(), lr=1e-4, betas=(0.5, 0.999))
    losses = []
    for batch in range(80):
        with torch.no_grad():
            reconstructions = model.imitate(images, generator)
        judge.zero_grad()
        discriminator_loss(model.discriminator(images), model.discriminator(reconstructions)).backward()
        judge.step()
        losses.append(functional.mse_loss(reconstructions, images).item())
        if batch % 2 == 0:
            optimizer.zero_grad()
            generated = model.generate(images, generator)
            generator_loss(images, generated, model.discriminator(generated.student)).backward()
            optimizer.step()
            model.inpainting.queues.update(generated.queries)
    assert sum(losses[-10:]) / 10 < losses[0] / 10
    disc = (torch.arange(64)[:, None] - 40).square() + (torch.arange(64) - 24).square() < 64
    seen = torch.where(disc, 1.0, images[:1]).expand(-1, 3, -1, -1)
    with torch.no_grad():
        model.eval().fit(images.expand(-1, 3, -1, -1), seed=0)
        anomaly_map = model(seen).anomaly_map[0, 0]
    assert anomaly_map[disc].mean() > anomaly_map[~disc].mean() + 1
