# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A model whose anomaly map is the brightness of the image, so that it is known where the map must be high."""

from typing import Any

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import AnomalibModule
from torch import nn

from anomalib_mediclip.models.components.few_shot_module import FewShotModule


class BrightnessModel(nn.Module):
    def forward(self, images: torch.Tensor) -> InferenceBatch:
        anomaly_map = images.mean(dim=1, keepdim=True)
        return InferenceBatch(pred_score=anomaly_map.amax(dim=(1, 2, 3)), anomaly_map=anomaly_map)


class Brightness(FewShotModule, AnomalibModule):
    MAX_EPOCHS = 1

    def __init__(self, image_size: tuple[int, int] = (96, 96), visualizer: bool = False) -> None:
        super().__init__(self.configure_pre_processor(image_size), visualizer=visualizer)
        self.model = BrightnessModel()

    def training_step(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def configure_optimizers(self) -> None:
        raise NotImplementedError
