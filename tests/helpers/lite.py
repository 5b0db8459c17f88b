# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The lite model as it is exported."""

from typing import Any

import torch
import yaml

from anomalib_mediclip import MediCLIP
from tests.conftest import REPOSITORY


def lite_model() -> MediCLIP:
    """Return the lite model, untrained, with thresholds amid its scores and pixels."""
    specification = yaml.safe_load((REPOSITORY / "configs" / "model" / "mediclip_lite.yaml").read_text())["model"]
    model = MediCLIP(**specification["init_args"]).eval()
    model.post_processor.image_threshold.fill_(0.6)
    model.post_processor.pixel_threshold.fill_(0.55)
    return model


@torch.no_grad()
def as_trained(model: MediCLIP, images: torch.Tensor) -> Any:
    """Predict images of any size with the pre-processing of training, which exports replace by their own."""
    return model.post_processor(model.model(model.pre_processor.transform(images)))
