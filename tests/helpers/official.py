# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The tiny random CLIP on which the official implementation was run, and the values it gave.

See ``tests/data/official_tiny_vit.safetensors``: its metadata hold the open_clip configuration.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from anomalib_mediclip import MediCLIPModel
from anomalib_mediclip.models.mediclip.builder import build_mediclip

# order of the official configuration, which the stored context vectors follow
ABNORMAL_TOKENS = [
    "abnormal",
    "positive",
    "symptomatic",
    "disease",
    "lesion",
    "pathological",
    "impaired",
    "evidence of disease",
    "abnormal finding",
    "pathological condition",
    "pathological abnormality",
]
LAYERS = [1, 3, 4]
IMAGE_SIZE = (56, 56)
VOCABULARY, TEXT_WIDTH = 49408, 64
OFFICIAL_SWITCHES = {"causal_text": False, "temperature": 1.0, "aggregation": "similarity"}


@dataclass
class OfficialRun:
    """Inputs, expected outputs, and the encoder as open_clip loads it."""

    tensors: dict[str, torch.Tensor]
    encoder: str

    def model(self, **switches) -> MediCLIPModel:
        """Return our model with the official run's learnt parameters."""
        model = build_mediclip(
            self.encoder, layers=LAYERS, image_size=IMAGE_SIZE, abnormal_tokens=ABNORMAL_TOKENS, **switches
        )
        with torch.no_grad():
            for index, adapter in enumerate(model.adapters):
                adapter.weight.copy_(self.tensors[f"adapter.{index}.weight"][:, :, None, None])
                adapter.bias.copy_(self.tensors[f"adapter.{index}.bias"])
            model.prompts.context.copy_(self._of_both("context"))
        return model

    def context_gradient(self) -> torch.Tensor:
        """Return the expected gradient of the context, normal prompts first."""
        return self._of_both("expected.grad_context")

    def _of_both(self, name: str) -> torch.Tensor:
        return torch.cat([self.tensors[f"{name}.normal"], self.tensors[f"{name}.abnormal"]])


def write_official_run(file: Path, folder: Path) -> OfficialRun:
    """Unpack the reference file into a folder that open_clip loads as ``local-dir:<folder>``."""
    with safe_open(file, "pt") as archive:
        tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
        configuration = json.loads(archive.metadata()["config"])
    preprocessing = {
        "mean": (0.48145466, 0.4578275, 0.40821073),
        "std": (0.26862954, 0.26130258, 0.27577711),
    }
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": configuration, "preprocess_cfg": preprocessing})
    )
    weights = {
        name.removeprefix("clip."): tensor
        for name, tensor in tensors.items()
        if name.startswith("clip.") and not name.startswith("clip.token_embedding")
    }
    weights["token_embedding.weight"] = torch.zeros(VOCABULARY, TEXT_WIDTH)
    weights["token_embedding.weight"][tensors["clip.token_embedding.ids"]] = tensors["clip.token_embedding.rows"]
    save_file(weights, folder / "open_clip_model.safetensors")
    return OfficialRun(tensors, f"local-dir:{folder}")
