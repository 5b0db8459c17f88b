# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint of the code before 0.1.0, written after two of four epochs, and the weights that code resumed it to."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anomalib_mediclip import MedicalFolder, MediCLIP
from tests.helpers.official import IMAGE_SIZE, LAYERS
from tests.integration.test_training import assert_same, engine, learnt


@pytest.fixture
def old(fixtures: Path, official, tmp_path: Path) -> Path:
    """Return the old checkpoint, with the encoder where it lies now."""
    content = torch.load(fixtures / "before_0_1_0.ckpt", weights_only=True)
    content["hyper_parameters"]["encoder"] = content["frozen_encoder"]["name"] = official.encoder
    torch.save(content, tmp_path / "old.ckpt")
    return tmp_path / "old.ckpt"


def resumed(official, root: Path, folder: Path, checkpoint: Path) -> MediCLIP:
    model = MediCLIP(
        official.encoder,
        layers=LAYERS,
        image_size=IMAGE_SIZE,
        views=None,  # as all trainings were then
        encoder_precision="float32",
        visualizer=False,
    )
    datamodule = MedicalFolder(root, k_shot=4, train_batch_size=4)
    engine(folder, epochs=4).fit(model, datamodule=datamodule, ckpt_path=checkpoint)
    return model


def test_it_resumes_to_the_weights_and_thresholds_of_the_code_that_wrote_it(
    official, fixtures, old, sample_data, tmp_path
) -> None:
    expected = load_file(fixtures / "before_0_1_0_resumed.safetensors")
    model = resumed(official, sample_data, tmp_path / "resumed", old)
    found = learnt(model) | {
        name: getattr(model.post_processor, name) for name in ("image_threshold", "pixel_threshold")
    }
    assert found.keys() == expected.keys()
    # equal to the bit on the machine that wrote them; other processors add up in another order
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_its_new_form_resumes_to_the_same_bits(official, old, sample_data, tmp_path) -> None:
    content = torch.load(old, weights_only=True)
    renewed = copy.deepcopy(content)
    description = renewed.pop("frozen_encoder")
    renewed |= {
        "model": description.pop("model"),
        "options": description.pop("settings"),
        "frozen_encoder": description,
    }
    torch.save(renewed, tmp_path / "new.ckpt")
    first = resumed(official, sample_data, tmp_path / "first", old)
    second = resumed(official, sample_data, tmp_path / "second", tmp_path / "new.ckpt")
    assert_same(learnt(first), learnt(second))


def test_its_state_has_the_keys_of_today(official, old) -> None:
    content = torch.load(old, weights_only=True)
    checkpoint = {"state_dict": MediCLIP.load_from_checkpoint(old).state_dict(), "hyper_parameters": {}}
    MediCLIP.load_from_checkpoint(old).on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"].keys() == content["state_dict"].keys()
    added = {"memory_bank": False, "top_fraction": 0.0}  # off, as if they were not there
    assert checkpoint["options"] == content["frozen_encoder"]["settings"] | added


def test_it_is_refused_under_another_option(old) -> None:
    with pytest.raises(ValueError, match=r"other settings .* Give --model\.temperature 0\.07"):
        MediCLIP.load_from_checkpoint(old, temperature=1.0)
