# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""AnoDDPM with networks whose answer is known."""

import pytest
import torch
from monai.networks.nets import diffusion_model_unet
from torch import nn

from anomalib_mediclip import AnoDDPM, AnoDDPMModel
from anomalib_mediclip.models.anoddpm.diffusion import Diffusion
from anomalib_mediclip.models.anoddpm.network import averaged, make_unet

TINY = {"image_size": (16, 16), "channels": (8, 16), "residual_blocks": 1, "attention": (False, True)}


class Oracle(nn.Module):
    """Tells the noise of images that it knows, in [-1, 1]."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = images
        self.calls: list[int] = []

    def forward(self, noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        self.calls.append(int(times[0]))
        kept = float(Diffusion().kept[int(times[0])])
        return (noisy - kept**0.5 * self.images) / (1 - kept) ** 0.5


def model(oracle: nn.Module | None = None, **options) -> AnoDDPMModel:
    made = AnoDDPMModel(**{**TINY, **options}).eval()
    if oracle is not None:
        made.average = oracle
    return made


@pytest.fixture
def grey() -> torch.Tensor:
    return torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [
    {"partial_steps": 1}, {"partial_steps": 40}, {"partial_steps": 250, "sampling_steps": 1},
    {"partial_steps": 250, "sampling_steps": 7},
])  # fmt: skip
def test_a_network_that_knows_the_image_gives_it_back(grey, options) -> None:
    oracle = Oracle(2 * grey - 1)
    made = model(oracle, **options)
    images = grey.expand(-1, 3, -1, -1)
    torch.testing.assert_close(made.reconstruct(images), grey, atol=1e-4, rtol=0)
    assert made(images).anomaly_map.max() < 1e-6
    steps = options.get("sampling_steps") or options["partial_steps"]
    assert len(oracle.calls) == 2 * steps
    assert oracle.calls[:steps] == sorted(oracle.calls[:steps], reverse=True)


def test_a_network_of_one_constant_image_shows_how_far_others_are_from_it(grey) -> None:
    constant = 0.4
    found = model(Oracle(torch.tensor(2 * constant - 1)), partial_steps=30)(grey.expand(-1, 3, -1, -1))
    expected = (grey - constant).square()  # of grey values in [0, 1]: a quarter of that in [-1, 1]
    torch.testing.assert_close(found.anomaly_map, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.pred_score, expected.mean(dim=(1, 2, 3)), atol=1e-5, rtol=0)


def test_a_fresh_network_sees_no_noise(grey) -> None:
    made = model(partial_steps=250, sampling_steps=1)
    kept = float(Diffusion().kept[249])
    noisy = kept**0.5 * (2 * grey - 1) + (1 - kept) ** 0.5 * made.first_noise
    expected = (noisy / kept**0.5).clamp(-1, 1)
    torch.testing.assert_close(2 * made.reconstruct(grey.expand(-1, 3, -1, -1)) - 1, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampling_steps", [None, 4])
def test_an_image_has_the_same_result_alone_and_in_any_batch(grey, sampling_steps) -> None:
    made = model(partial_steps=12, sampling_steps=sampling_steps)
    for parameter in made.average.parameters():  # the output of a fresh network is 0
        nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(1))
    images = grey.expand(-1, 3, -1, -1)
    with torch.no_grad():
        together = made(images)
        for index in (2, 0, 1):
            alone = made(images[index : index + 1])
            torch.testing.assert_close(alone.anomaly_map[0], together.anomaly_map[index], atol=1e-5, rtol=0)


def test_colours_are_averaged(grey) -> None:
    made = model(partial_steps=3)
    coloured = torch.cat([grey + 0.1, grey, grey - 0.1], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(made(coloured), made(grey.expand(-1, 3, -1, -1)), atol=1e-6, rtol=0)


def test_every_step_has_a_noise_of_its_own_which_the_seed_decides() -> None:
    made, again, other = (model(partial_steps=5, seed=seed) for seed in (0, 0, 1))
    fields = [made._noise_at(time, (16, 16)) for time in range(5)]
    assert torch.equal(made.first_noise, fields[4])
    assert len({field.sum().item() for field in fields}) == 5
    assert torch.equal(made.first_noise, again.first_noise)
    assert not torch.equal(made.first_noise, other.first_noise)


def test_the_loss_of_a_perfect_answer_is_0(grey) -> None:
    made = model()
    made.network = Oracle(2 * grey - 1)
    permutations = torch.stack([torch.randperm(256) for _ in range(3)])
    assert made.denoising_loss(grey, torch.tensor([400] * 3), permutations) < 1e-8
    assert made.denoising_loss(grey + 0.1, torch.tensor([400] * 3), permutations) > 1e-3


def test_number_of_parameters_is_the_official_one() -> None:
    with torch.device("meta"):
        network = make_unet((128, 128, 256, 256, 512, 512), 2, (False,) * 3 + (True,) * 3, 2, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 131_649_793


def test_attention_has_two_heads_wherever_it_is_used() -> None:
    made = model(channels=(8, 16, 32), attention=(False, True, True), image_size=(32, 32))
    for network in (made.network, made.average):
        blocks = [part for part in network.modules() if isinstance(part, diffusion_model_unet.SpatialAttentionBlock)]
        assert len(blocks) == 7  # 2 on the way down, 1 in the middle, 4 on the way up
        assert {block.attn.num_heads for block in blocks} == {2}


def test_the_average_is_that_of_the_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = averaged(network, decay=0.6)
    expected = 0.0
    for update, value in enumerate([3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0, 9.0, 7.0, 9.0]):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
        decay = 0.0 if update == 0 else min(0.6, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert (1 + update) / (10 + update) > 0.6  # so both parts of the formula were used


@pytest.mark.parametrize(("options", "message"), [
    ({"partial_steps": 0}, r"1 to timesteps=1000"),
    ({"partial_steps": 1001}, r"1 to timesteps=1000"),
    ({"sampling_steps": 300}, r"partial_steps=250 steps is taken away in 1 to 250"),
    ({"image_size": (17, 16)}, r"image_size=\(17, 16\).*multiples of 2. Use \(18, 16\) or \(16, 16\)"),
    ({"channels": (8, 12)}, r"channels=\[8, 12\].*multiples of 8"),
    ({"attention": (True,)}, r"both lists must have the same length"),
])  # fmt: skip
def test_options_that_do_not_fit_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        model(**options)


@pytest.mark.parametrize(("options", "message"), [
    ({"partial_steps": 900}, r"partial_steps=900, train_timesteps=800, timesteps=1000: each must be at most the next"),
    ({"views": 0}, r"views=0"),
    ({"wavelength": 0.0}, r"wavelength=0.0"),
])  # fmt: skip
def test_options_of_the_training_that_do_not_fit_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        AnoDDPM(**{**TINY, **options})


def test_without_monai_the_extra_is_named(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib-mediclip\[diffusion\]'"):
        model()
