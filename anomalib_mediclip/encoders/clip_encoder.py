# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Vision towers of open_clip that return the patch features of some of their blocks (paper, section 2.3)."""

from typing import Any

import torch

from anomalib_mediclip.encoders.vision_encoder import VisionEncoder
from anomalib_mediclip.encoders.weights import check_layers


class ClipVisionEncoder(VisionEncoder):
    """Vision tower of an open_clip model (ViT or ResNet): outputs of the residual stream, class token dropped.

    No final normalisation and no projection are applied, as in the official code; the blocks after the last tapped
    one are removed.

    Args:
        clip (Any): Frozen open_clip model with a native vision tower.
        layers (list[int]): Tapped blocks, 1-based (for a ResNet its four stages).

    Raises:
        ValueError: If a block does not exist, or the vision tower is of a kind that has no blocks to tap.
    """

    PREFERS_BFLOAT16 = True

    def __init__(self, clip: Any, layers: list[int]) -> None:
        tower = clip.visual
        super().__init__(tuple(tower.preprocess_cfg["mean"]), tuple(tower.preprocess_cfg["std"]))
        name = type(tower).__name__
        if name == "VisionTransformer":
            check_layers(name, layers, tower.transformer.layers)
            self.indices = [layer - 1 for layer in layers]
            tower.transformer.prune_intermediate_layers(self.indices)
            self.channels = [tower.transformer.width] * len(layers)
        elif name == "ModifiedResNet":
            check_layers(name, layers, 4)
            self.indices = list(layers)  # open_clip counts the stem as block 0
            self.channels = [tower.layer1[-1].bn3.num_features * 2 ** (layer - 1) for layer in layers]
        else:
            msg = f"Vision towers of type {name} are not supported. Use an open_clip ViT or ResNet, or 'timm/<model>'."
            raise ValueError(msg)
        self.tower = tower

    def extract(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run the blocks up to the last tapped one; see :meth:`VisionEncoder.extract`."""
        output = self.tower.forward_intermediates(
            images,
            indices=self.indices,
            stop_early=True,
            intermediates_only=True,
            output_fmt="NCHW",
        )
        features: list[torch.Tensor] = output["image_intermediates"]
        return features
