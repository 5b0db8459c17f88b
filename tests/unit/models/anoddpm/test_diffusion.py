# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Steps of the diffusion against MONAI's schedulers, and against what follows from the formulas."""

import itertools

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from anomalib_mediclip.models.anoddpm.diffusion import Diffusion, jump_times

SCHEDULE = {"num_train_timesteps": 1000, "schedule": "linear_beta", "beta_start": 1e-4, "beta_end": 2e-2}


@pytest.fixture
def images() -> torch.Tensor:
    return 2 * torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0)) - 1


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_noise_levels() -> None:
    kept = Diffusion().kept
    assert kept[0].item() == pytest.approx(0.9999)
    assert kept[249].item() == pytest.approx(0.5241, abs=5e-5)


def test_noise_is_added_as_by_monai(images, noise) -> None:
    times = torch.tensor([0, 700])
    expected = DDPMScheduler(**SCHEDULE).add_noise(images, noise, times)
    torch.testing.assert_close(Diffusion().add_noise(images, noise, times), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("time", [999, 249, 1, 0])
def test_a_step_is_that_of_monai(images, noise, time) -> None:
    scheduler = DDPMScheduler(**SCHEDULE, variance_type="fixed_large", clip_sample=True)
    # its own tables are float32, in which 1 - 0.9999 has four digits
    scheduler.betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    expected, _ = scheduler.step(noise, time, images, generator=torch.Generator().manual_seed(3))
    fresh = torch.randn(images.shape, generator=torch.Generator().manual_seed(3)) if time else None
    diffusion = Diffusion()
    found = diffusion.step(images, diffusion.estimate(images, noise, time), fresh, time)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("time", [990, 240, 10, 0])
def test_a_jump_is_that_of_monai(images, noise, time) -> None:
    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=True)
    scheduler.set_timesteps(100)
    expected, _ = scheduler.step(noise, time, images)
    diffusion = Diffusion()
    found = diffusion.jump(diffusion.estimate(images, noise, time), noise, time - 10 if time else -1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_last_step_is_the_estimate(images, noise) -> None:
    torch.testing.assert_close(Diffusion().step(noise, images, None, 0), images, atol=1e-6, rtol=0)


def test_the_image_is_estimated_from_its_noise(images, noise) -> None:
    diffusion = Diffusion()
    noisy = diffusion.add_noise(images, noise, torch.tensor([500]))
    torch.testing.assert_close(diffusion.estimate(noisy, noise, 500), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("number", [1, 2, 10, 25, 250])
def test_times_fall_evenly_to_0(number) -> None:
    times = jump_times(250, number)
    steps = {first - second for first, second in itertools.pairwise(times)}
    assert times[0] == 249
    assert len(times) == number
    assert number == 1 or times[-1] == 0
    assert not steps or max(steps) - min(steps) <= 1
