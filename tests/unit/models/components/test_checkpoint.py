# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that a model refuses."""

import pytest

from anomalib_mediclip.models.components.checkpoint import (
    check_encoder_hash,
    check_encoder_name,
    check_model,
    check_options,
    describe_options,
)

OPTIONS = {"layers": [1, 2], "temperature": 0.07}
ENCODER = {"name": "ViT", "weights": "openai", "hash": "ab"}


def test_a_new_option_is_part_of_the_description_unless_it_is_listed() -> None:
    hyper_parameters = {"layers": (1, 2), "forgotten": 3, "seed": 0}
    assert describe_options(hyper_parameters, {"seed"}) == {"layers": [1, 2], "forgotten": 3}


def test_an_option_that_only_one_of_them_has_is_refused() -> None:
    for trained, present in ((OPTIONS, OPTIONS | {"new": 1}), (OPTIONS | {"old": 1}, OPTIONS)):
        with pytest.raises(ValueError, match=r"another version .* only one of them has (new|old)"):
            check_options({"options": trained}, present)


def test_options_that_differ_are_all_named_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"Give --model\.layers \[1, 2\], --model\.temperature 0\.07"):
        check_options({"options": OPTIONS}, {"layers": [3], "temperature": 1.0})
    check_options({"options": OPTIONS}, OPTIONS)


def test_another_model_is_named_and_a_foreign_checkpoint_too() -> None:
    with pytest.raises(ValueError, match="belongs to SimpleNet, this model is MediCLIP"):
        check_model({"model": "SimpleNet"}, "MediCLIP")
    with pytest.raises(ValueError, match=r"not written by anomalib-mediclip"):
        check_model({"state_dict": {}}, "MediCLIP")


def test_encoders_are_told_apart_by_name_and_hash_but_folders_by_hash_alone() -> None:
    with pytest.raises(ValueError, match="'ViT', this model has 'RN50'"):
        check_encoder_name({"frozen_encoder": ENCODER}, ENCODER | {"name": "RN50"})
    with pytest.raises(ValueError, match=r"hash ab\) than this model has \(openai, hash cd\)"):
        check_encoder_hash({"frozen_encoder": ENCODER}, ENCODER | {"hash": "cd"})
    moved = ENCODER | {"name": "local-dir:/new"}
    check_encoder_name({"frozen_encoder": ENCODER | {"name": "local-dir:/old"}}, moved)
