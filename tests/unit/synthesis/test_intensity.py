# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Task GaussIntensityChange."""

import numpy as np
import pytest

from anomalib_mediclip.synthesis.intensity import change_intensity, draw_intensity_change, feather_mask, smooth_noise


def test_equation_4_exactly():
    patch = np.array([[[0.2], [0.4]], [[0.6], [0.9]]], np.float32)
    weights = np.array([[1, 0], [1, 1]], np.float32)
    noise = np.array([[0.5, 0.5], [0.25, 0.6]], np.float32)
    brighter = change_intensity(patch, weights, noise, gamma=0.4)
    darker = change_intensity(patch, weights, noise, gamma=-0.4)
    assert brighter[..., 0] == pytest.approx(np.array([[0.4, 0.4], [0.7, 1.0]]))  # 1.14 is limited to 1
    assert darker[..., 0] == pytest.approx(np.array([[0.0, 0.4], [0.5, 0.66]]))


def test_noise_is_binarised_at_zero_before_it_is_blurred():
    """A step edge at the middle, blurred by sigma, is the normal distribution function."""
    noise = np.tile(np.where(np.arange(100) < 50, -3.0, 0.0), (60, 1)).astype(np.float32)
    smooth = smooth_noise(noise, sigma=4.0)
    assert smooth[:, :30].max() < 1e-4
    assert smooth[:, 70:] == pytest.approx(1)
    assert smooth[30, 49] + smooth[30, 50] == pytest.approx(1, abs=1e-4)
    assert smooth[30, 53] == pytest.approx(0.809, abs=5e-3)  # Phi(3.5 / 4)


def test_normalised_noise_spans_zero_to_one():
    noise = np.random.default_rng(0).standard_normal((224, 224), np.float32)
    raw, normalised = smooth_noise(noise, 4.0), smooth_noise(noise, 4.0, normalise=True)
    assert (normalised.min(), normalised.max()) == pytest.approx((0, 1))
    assert raw.std() == pytest.approx(0.5 / (2 * np.sqrt(np.pi) * 4), rel=0.15)  # white noise after the filter
    assert normalised.std() == pytest.approx(0.135, abs=0.02)


def test_feather_halves_the_edge_but_not_the_border_of_the_patch():
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    weights = feather_mask(mask, sigma=3.0)
    assert weights[:, 0] == pytest.approx(1)
    assert weights[20, 19] == pytest.approx(0.5, abs=0.07)
    assert not weights[:, 20:].any()


def test_draws_cover_the_ranges_of_the_paper():
    rng = np.random.default_rng(0)
    changes = [draw_intensity_change(rng, (448, 448)) for _ in range(200)]
    gammas = np.array([change.gamma for change in changes])
    assert np.all((np.abs(gammas) >= 0.4) & (np.abs(gammas) < 0.6))
    assert 60 < (gammas > 0).sum() < 140
    assert {change.noise_sigma for change in changes} == {8.0, 14.0}  # 4 and 7 pixels at 224
