# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""A method that trains networks of its own: an autoencoder against a discriminator, scored by the squared error."""

from typing import Any

import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models.components import AnomalibModule
from torch import nn

from anomalib_mediclip.models.components.few_shot_module import FewShotModule


class AutoencoderModel(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        down, up = nn.Conv2d(3, width, 4, stride=4), nn.ConvTranspose2d(width, 3, 4, stride=4)
        self.autoencoder = nn.Sequential(down, nn.ReLU(), up, nn.Sigmoid())
        self.discriminator = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.ReLU(), nn.Conv2d(width, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor | InferenceBatch:
        reconstructed = self.autoencoder(images)
        if self.training:
            return reconstructed
        anomaly_map = (reconstructed - images).square().mean(dim=1, keepdim=True)
        return InferenceBatch(pred_score=anomaly_map.mean(dim=(1, 2, 3)), anomaly_map=anomaly_map)


class Throwaway(FewShotModule, AnomalibModule):
    MAX_EPOCHS = 3
    SCORES = "distance"
    TRAINING_OPTIONS = FewShotModule.TRAINING_OPTIONS | {"learning_rate"}

    def __init__(
        self, width: int = 8, image_size: tuple[int, int] = (32, 32), learning_rate: float = 1e-2, seed: int = 0,
        post_processor: bool = True, evaluator: bool = True, visualizer: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(self.configure_pre_processor(image_size), post_processor, evaluator, visualizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = AutoencoderModel(width)
        self.automatic_optimization = False

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> None:
        reconstructed, generator, judge = self.model(batch.image), *self.optimizers()
        fooled = -self.model.discriminator(reconstructed).mean()
        self.descend(generator, (reconstructed - batch.image).square().mean() + 0.01 * fooled, batch, "generator_loss")
        false, true = (self.model.discriminator(images) for images in (reconstructed.detach(), batch.image))
        self.descend(judge, ((1 + false).relu() + (1 - true).relu()).mean(), batch, "discriminator_loss")

    def descend(self, optimizer: Any, loss: torch.Tensor, batch: ImageBatch, name: str) -> None:
        optimizer.zero_grad()
        self.manual_backward(self.checked_loss(loss, batch.batch_size, "Lower the learning rate.", name))
        optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        parts = self.model.autoencoder, self.model.discriminator
        return [torch.optim.Adam(part.parameters(), lr=self.hparams["learning_rate"]) for part in parts]
