# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""From the distance of an image to a map of it: Grad-CAM in closed form (paper, section 2.4)."""

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional

from anomalib_mediclip.models.cut_paste.density import LEAST_DISTANCE

SMOOTHING = 4.0  # sigma in pixels of the image


class AnomalyMapGenerator(nn.Module):
    """Say how much each position adds to the distance d of its image.

    Pooling is linear, so the gradient of d with respect to the feature map is the same at all positions, and
    :func:`grad_cam` has a closed form, which needs no autograd and can be exported. The paper does not say which output
    it differentiates; here it is d. Its sum over positions is 0, since d does not depend on the length of the features;
    the ReLU of Grad-CAM would make half of the pixels equal, and is left out.

    Maps of distances must not be negative. With h times w positions, d + h w M is what d would be, to first order, if
    the whole image looked like a position; the map is d softplus(1 + h w M / d), which is close to that where it is
    positive, and has the same order of pixels.

    Example:
        >>> import torch
        >>> generator = AnomalyMapGenerator()
        >>> batch = generator(torch.ones(1), torch.zeros(1, 1, 4, 4), (32, 32))
        >>> batch.anomaly_map.shape, batch.pred_score
        (torch.Size([1, 1, 32, 32]), tensor([1.]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.smooth = GaussianBlur2d(sigma=SMOOTHING)

    def forward(
        self, distance: torch.Tensor, contributions: torch.Tensor, image_size: torch.Size | tuple[int, int]
    ) -> InferenceBatch:
        """Compute map and score.

        Args:
            distance (torch.Tensor): Distances d ``(B,)``, 0 or more.
            contributions (torch.Tensor): h w M ``(B, 1, h, w)``, from :func:`grad_cam`.
            image_size (torch.Size | tuple[int, int]): Height and width of the map in pixels, each at least 17.

        Returns:
            InferenceBatch: Anomaly map ``(B, 1, H, W)`` and image score d ``(B,)``, both distances.
        """
        scale = distance.clamp(min=LEAST_DISTANCE)[:, None, None, None]
        relative = functional.interpolate(contributions / scale, image_size, mode="bilinear", align_corners=False)
        return InferenceBatch(pred_score=distance, anomaly_map=scale * functional.softplus(1 + self.smooth(relative)))


def grad_cam(
    feature_map: torch.Tensor, unit: torch.Tensor, length: torch.Tensor, gradient: torch.Tensor
) -> torch.Tensor:
    """Compute Grad-CAM of the distance on a feature map, times the number of positions.

    With r the gradient of d with respect to z = f / |f|, that with respect to f is (r - (r'z) z) / |f|, and that with
    respect to each position of A is the same over h w.

    Args:
        feature_map (torch.Tensor): Feature maps A ``(B, C, h, w)``.
        unit (torch.Tensor): Unit vectors z ``(B, C)``.
        length (torch.Tensor): Lengths |f| ``(B, 1)``.
        gradient (torch.Tensor): r ``(B, C)``.

    Returns:
        torch.Tensor: h w M ``(B, 1, h, w)``, whose sum over positions is 0.
    """
    weights = (gradient - (gradient * unit).sum(dim=1, keepdim=True) * unit) / length
    return (weights[:, :, None, None] * feature_map).sum(dim=1, keepdim=True)
