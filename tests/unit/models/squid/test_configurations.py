# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Configurations of SQUID."""

import inspect
from pathlib import Path

import yaml

from anomalib_mediclip import SQUID
from anomalib_mediclip.models.squid.lightning_model import batches_of
from tests.conftest import REPOSITORY


def configuration(name: str) -> dict:
    text = Path(REPOSITORY / "configs" / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def test_the_paper_is_the_default() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(SQUID).parameters.items()}
    options = configuration("squid")["model"]["init_args"]
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    components = {"seed", "pre_processor", "post_processor", "evaluator", "visualizer"}
    assert given == {name: value for name, value in defaults.items() if name not in components}
    assert configuration("squid")["trainer"] == {"max_steps": SQUID.MAX_STEPS}


def test_lite_is_a_small_model_with_the_same_parts_and_a_thousand_batches() -> None:
    lite = configuration("squid_lite")
    module = SQUID(**lite["model"]["init_args"])
    generator = sum(p.numel() for n, p in module.model.named_parameters() if not n.startswith("discriminator."))
    assert 4.6e6 < generator < 4.7e6
    assert sum(parameter.numel() for parameter in module.model.discriminator.parameters()) == 681_921
    assert batches_of(lite["trainer"]["max_steps"]) == 1000
    assert module.default_trainer_arguments["max_steps"] == 25_500
