# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Registration loss and Siamese head."""

import numpy as np
import pytest
import torch

from anomalib_mediclip.models.reg_ad.loss import Registration, RegistrationLoss
from anomalib_mediclip.models.reg_ad.siamese import SiameseEncoder, SiamesePredictor


def maps(seed: int) -> torch.Tensor:
    return torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def cosines(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the mean cosine over images and positions, one after the other."""
    found = []
    for a, b in zip(first.detach().double().numpy(), second.detach().double().numpy(), strict=True):
        for row in range(a.shape[1]):
            for column in range(a.shape[2]):
                u, v = a[:, row, column], b[:, row, column]
                found.append(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    return float(np.mean(found))


def test_loss_is_the_negative_cosine_of_predictions_with_the_other_side() -> None:
    z_query, p_query, z_support, p_support = (maps(seed) for seed in range(4))
    loss = RegistrationLoss()(Registration(z_query, p_query, z_support, p_support))
    expected = -(cosines(p_query, z_support) + cosines(p_support, z_query)) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_equal_maps_have_the_least_loss() -> None:
    same = maps(0)
    assert RegistrationLoss()(Registration(same, 2 * same, 3 * same, same)).item() == pytest.approx(-1)
    assert RegistrationLoss()(Registration(same, -same, same, -same)).item() == pytest.approx(1)


def test_no_gradient_goes_through_what_is_predicted() -> None:
    z_query, p_query, z_support, p_support = (maps(seed) for seed in range(4))
    RegistrationLoss()(Registration(z_query, p_query, z_support, p_support)).backward()
    assert z_query.grad is None
    assert z_support.grad is None
    assert p_query.grad.abs().sum() > 0
    assert p_support.grad.abs().sum() > 0


def test_head_has_the_layers_of_the_official_code() -> None:
    encoder, predictor = SiameseEncoder(8), SiamesePredictor(8)
    hidden = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert [type(layer).__name__ for layer in encoder] == [*hidden, *hidden, "Conv2d"]
    assert [type(layer).__name__ for layer in predictor] == [*hidden, "Conv2d"]
    convolutions = [layer for layer in [*encoder, *predictor] if isinstance(layer, torch.nn.Conv2d)]
    assert all(layer.bias is None and layer.weight.shape == (8, 8, 1, 1) for layer in convolutions)
    assert predictor(encoder(torch.rand(2, 8, 14, 14))).shape == (2, 8, 14, 14)  # nothing is pooled
