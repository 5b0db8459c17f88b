# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped configurations of the full-size model, with random weights."""

from pathlib import Path

import pytest
import torch
import yaml
from anomalib.engine import Engine

from anomalib_mediclip import MedicalFolder, MediCLIP
from tests.conftest import REPOSITORY

MEGABYTE = 1_000_000


def options_of(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / "configs" / "model" / name).read_text())["model"]["init_args"]


def test_the_paper_is_the_default() -> None:
    import inspect

    from anomalib_mediclip.models.mediclip.builder import build_mediclip
    from anomalib_mediclip.seeds import used_seed
    from anomalib_mediclip.synthesis import MedicalAnomalyGenerator

    defaults = {name: parameter.default for name, parameter in inspect.signature(MediCLIP).parameters.items()}
    for name, parameter in inspect.signature(build_mediclip).parameters.items():
        assert parameter.default == (used_seed(None) if name == "seed" else defaults[name]), name
    options = options_of("mediclip.yaml")
    synthesis = options.pop("synthesis")
    for name, value in options.items():
        assert defaults[name] == (tuple(value) if isinstance(value, list) else value), name
    assert vars(MedicalAnomalyGenerator(**synthesis)) | {"tasks": 0} == vars(MedicalAnomalyGenerator()) | {"tasks": 0}
    assert set(synthesis["tasks"]) == set(MedicalAnomalyGenerator().tasks)


def test_plus_adds_what_lite_adds_to_the_paper() -> None:
    added = {"memory_bank": True, "top_fraction": 0.05}
    assert options_of("mediclip_plus.yaml") == options_of("mediclip.yaml") | added
    assert added.items() <= options_of("mediclip_lite.yaml").items()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "limit"), [("mediclip.yaml", 12), ("mediclip_official.yaml", 12), ("mediclip_plus.yaml", 20)]
)
def test_trains_two_steps_and_reloads_to_the_same_map(name: str, limit: int, sample_data: Path, tmp_path: Path) -> None:
    model = MediCLIP(**options_of(name) | {"weights": None}, visualizer=False)
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert learnt == 2_490_624
    engine = Engine(max_steps=2, default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    engine.fit(model, datamodule=MedicalFolder(sample_data, k_shot=4, train_batch_size=2))
    checkpoint = engine.best_model_path
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    size = sum(value.numel() * value.element_size() for name, value in state.items() if name.startswith("model."))
    assert size < limit * MEGABYTE
    assert Path(checkpoint).stat().st_size < (24 + limit) * MEGABYTE
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.eval()(image).anomaly_map
        del model, engine
        restored = MediCLIP.load_from_checkpoint(checkpoint).eval()(image).anomaly_map
    assert torch.equal(restored, expected)
