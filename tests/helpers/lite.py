# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The lite model as it is exported."""

from typing import Any

import torch
import yaml

from anomalib_mediclip import MediCLIP
from tests.conftest import REPOSITORY


def lite_model() -> MediCLIP:
    """Return the lite model, untrained, with a bank of noise and thresholds amid its scores and pixels."""
    specification = yaml.safe_load((REPOSITORY / "configs" / "model" / "mediclip_lite.yaml").read_text())["model"]
    model = MediCLIP(**specification["init_args"]).eval()
    noise = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.model.vision_encoder(noise)
        model.model.memory_bank.remember([features], model.image_size, ["a", "b", "c", "d"])
        model.model.map_moments.copy_(model.model.map_moments_of({}, [features], model.image_size))
        predictions = model.model(noise.mean(dim=1, keepdim=True).expand_as(noise))
    model.post_processor.image_threshold.copy_(predictions.pred_score.median())
    model.post_processor.pixel_threshold.copy_(predictions.anomaly_map.median())
    return model


@torch.no_grad()
def as_trained(model: MediCLIP, images: torch.Tensor) -> Any:
    """Predict images of any size with the pre-processing of training, which exports replace by their own."""
    return model.post_processor(model.model(model.pre_processor.transform(images)))
