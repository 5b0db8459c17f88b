# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Parity with the official implementation, and the paper's form of the same model."""

import pytest
import torch

from anomalib_mediclip.models.mediclip.loss import dice_loss, focal_loss
from tests.helpers.official import OFFICIAL_SWITCHES, OfficialRun


@pytest.fixture(scope="module")
def official_model(official: OfficialRun):
    return official.model(**OFFICIAL_SWITCHES)


def test_block_outputs_are_the_residual_stream_without_class_token(official: OfficialRun, official_model) -> None:
    features = official_model.vision_encoder(official.tensors["input.image"])
    for index, feature in enumerate(features):
        expected = official.tensors[f"expected.block_output.{index}"][:, 1:]
        torch.testing.assert_close(feature.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_adapted_features_match_the_official_code(official: OfficialRun, official_model) -> None:
    features = official_model.vision_encoder(official.tensors["input.image"])
    for index, (adapter, feature) in enumerate(zip(official_model.adapters, features, strict=True)):
        adapted = torch.nn.functional.normalize(adapter(feature), dim=1).permute(0, 2, 3, 1)
        torch.testing.assert_close(adapted, official.tensors[f"expected.adapted.{index}"], atol=1e-5, rtol=0)


def test_prompt_features_match_without_and_with_causal_mask(official: OfficialRun, official_model) -> None:
    expected = official.tensors["expected.text_features"]
    torch.testing.assert_close(official_model.prompts(), expected, atol=1e-5, rtol=0)
    causal = official.tensors["expected.text_features_causal"]
    torch.testing.assert_close(official.model().prompts(), causal, atol=1e-5, rtol=0)
    assert not torch.allclose(expected, causal, atol=1e-3)


def test_probability_map_and_score_match_the_official_code(official: OfficialRun) -> None:
    model = official.model(**OFFICIAL_SWITCHES)
    probabilities = model(official.tensors["input.image"])
    torch.testing.assert_close(probabilities, official.tensors["expected.probability_map"], atol=1e-5, rtol=0)
    predictions = model.eval()(official.tensors["input.image"])
    torch.testing.assert_close(predictions.pred_score, official.tensors["expected.image_score"], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions.anomaly_map, probabilities[:, 1:], atol=1e-6, rtol=0)


def test_map_of_the_paper(official: OfficialRun) -> None:
    probabilities = official.model()(official.tensors["input.image"])
    expected = official.tensors["expected.paper_probability_map_causal"]
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=0)


def test_losses_and_context_gradient_match_the_official_code(official: OfficialRun) -> None:
    model = official.model(**OFFICIAL_SWITCHES)
    probabilities, mask = model(official.tensors["input.image"]), official.tensors["input.mask"]
    focal, dice = focal_loss(probabilities, mask), dice_loss(probabilities[:, 1], mask)
    assert focal.item() == pytest.approx(official.tensors["expected.loss_focal"].item(), abs=1e-4)
    assert dice.item() == pytest.approx(official.tensors["expected.loss_dice"].item(), abs=1e-4)
    (focal + dice).backward()
    expected = official.context_gradient()
    assert ((model.prompts.context.grad - expected).norm() / expected.norm()).item() < 1e-3
