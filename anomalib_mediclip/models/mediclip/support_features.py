# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Patch features of support images that a training step leaves as they are: the identity task of the official code."""

from collections.abc import Mapping, Sequence

import torch

from anomalib_mediclip.encoders.vision_encoder import VisionEncoder

MAX_IMAGES = 64  # of 3 MB each with ViT-L/14


class SupportFeatures:
    """Computes the patch features of unchanged images once.

    Each is computed alone, so that its features do not depend on the batch that it is first met in, and a resumed run
    has those of an uninterrupted one.

    Args:
        encoder (VisionEncoder): Frozen encoder.
        images (Mapping[str, torch.Tensor]): Support images ``(3, H, W)`` by name, in [0, 1].
    """

    def __init__(self, encoder: VisionEncoder, images: Mapping[str, torch.Tensor]) -> None:
        self._encoder = encoder
        self._images = dict(list(images.items())[:MAX_IMAGES])
        self._features: dict[str, list[torch.Tensor]] = {}

    def encode(self, images: torch.Tensor, names: Sequence[str]) -> list[torch.Tensor] | None:
        """Extract the patch features of a batch, from the kept ones where an image is a support image as it is.

        Args:
            images (torch.Tensor): Images ``(B, 3, H, W)``.
            names (Sequence[str]): Their names.

        Returns:
            list[torch.Tensor] | None: Patch features of shape ``(B, C_j, H_j, W_j)``, one tensor for each tapped block;
            None where no image is unchanged.
        """
        unchanged = [
            name in self._images and torch.equal(image, self._images[name].to(image))
            for image, name in zip(images, names, strict=True)
        ]
        if not any(unchanged):
            return None
        changed = [index for index, same in enumerate(unchanged) if not same]
        computed = zip(*self._encoder(images[changed]), strict=True) if changed else iter(())
        features = [
            self._of_support_image(name, image) if same else next(computed)
            for image, name, same in zip(images, names, unchanged, strict=True)
        ]
        return [torch.stack(block) for block in zip(*features, strict=True)]

    def _of_support_image(self, name: str, image: torch.Tensor) -> list[torch.Tensor]:
        if name not in self._features:
            self._features[name] = [block[0] for block in self._encoder(image[None])]
        return self._features[name]
