# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Memory bank: how far a patch is from the nearest patch of the support set.

The map that is learnt from synthetic anomalies and the distance to the support set fail on different images. This is
not part of the paper. Memory banks of patch features come from PatchCore (Roth et al., CVPR 2022,
https://arxiv.org/abs/2106.08265); joining one to prompts comes from WinCLIP (Jeong et al., CVPR 2023,
https://arxiv.org/abs/2303.14814).
"""

from collections.abc import Iterable, Sequence

import torch
from anomalib.models.components import KCenterGreedy
from torch.nn import functional

from anomalib_mediclip.encoders.weights import state_hash
from anomalib_mediclip.models.components.fitted_state import FittedState
from anomalib_mediclip.seeds import number_of

STRIDE = 16  # pixels; blocks with larger patches cannot locate anomalies
LARGEST_BANK = 2_000_000  # numbers, 8 MB; above it a coreset is kept
NEARBY = 3  # patches around a patch which its receptive field makes similar to it
LEAST_SPREAD = 0.01  # of logits and of distances (at most 2 for one block); constant images have less


class MemoryBank(FittedState):
    """Patch features of the support set, and the distances that are usual between its images.

    Distances are given as z-scores: minus the mean and divided by the standard deviation of those of the support set's
    own patches, each from the nearest patch of the other images. All patches of all images count alike, so four images
    have some 800 distances to estimate two numbers from. With one image, or copies of one image, there are no other
    images; distances are then measured to patches of the same image that are at least four patches away.

    Attributes:
        patches (torch.Tensor): Patch features ``(N, C)``; empty until :meth:`remember`.
        numbers (torch.Tensor): Their numbers among all patches of the support set, ``(N,)``, int64.
        images (torch.Tensor): Number of the name of each image, and number of its first copy, ``(k, 2)``, int64.
        moments (torch.Tensor): Mean and standard deviation of the support set's own distances, shape ``(2,)``.

    Example:
        >>> bank, features = MemoryBank(), torch.rand(3, 8, 14, 14, generator=torch.Generator().manual_seed(0))
        >>> bank.remember([[features]], (224, 224), ["1.png", "2.png", "3.png"])
        >>> bank.patches.shape, bank([features], (224, 224)).shape
        (torch.Size([588, 8]), torch.Size([3, 1, 14, 14]))
    """

    CONTENT = ("patches", "numbers", "images", "moments")

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.zeros(0, 0)
        self.numbers = torch.zeros(0, dtype=torch.int64)
        self.images = torch.zeros(0, 2, dtype=torch.int64)
        self.moments = torch.tensor([0.0, 1.0])

    def forward(
        self,
        patch_features: Sequence[torch.Tensor],
        image_size: torch.Size | tuple[int, int],
        names: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """Compute how unusual the distance of every patch to the nearest patch of the support set is.

        Args:
            patch_features (Sequence[torch.Tensor]): Patch features ``(B, C_j, H_j, W_j)``, one tensor for each tapped
                block.
            image_size (torch.Size | tuple[int, int]): Height and width of the images in pixels.
            names (Sequence[str] | None, optional): Names of images of the support set, painted or not, each of which is
                compared with the other images only: nothing is unusual about an image that is in the bank. Defaults to
                ``None``: they are images of no support set.

        Returns:
            torch.Tensor: z-scores ``(B, 1, h, w)``; (h, w) is the grid of the largest patches in use.

        Raises:
            RuntimeError: If the bank is empty.
        """
        if not len(self.patches):
            msg = "The memory bank is empty: train the model or load a checkpoint before it predicts."
            raise RuntimeError(msg)
        local = local_features(patch_features, image_size)
        own = None if names is None else torch.stack([self._number_of(name) for name in names])
        return (self._distances(local, own)[:, None] - self.moments[0]) / self.moments[1]

    @torch.no_grad()
    def remember(
        self,
        portions: Iterable[Sequence[torch.Tensor]],
        image_size: torch.Size | tuple[int, int],
        names: Sequence[str],
        seed: int = 0,
    ) -> None:
        """Fill the bank.

        Args:
            portions (Iterable[Sequence[torch.Tensor]]): Patch features of the support images, some images at a time.
            image_size (torch.Size | tuple[int, int]): Height and width of the images in pixels.
            names (Sequence[str]): Names of the support images.
            seed (int, optional): Seed of the coreset. Defaults to ``0``.
        """
        images = torch.cat([local_features(portion, image_size) for portion in portions])
        patches = images.flatten(2).transpose(1, 2)
        first = _first_copies(images)
        distinct = torch.isin(torch.arange(len(first)), first).repeat_interleave(patches.shape[1]).to(images.device)
        numbers = distinct.nonzero()[:, 0]
        kept = numbers[_coreset(patches.flatten(0, 1)[numbers], max(1, LARGEST_BANK // patches.shape[2]), seed)]
        self.patches, self.numbers = patches.flatten(0, 1)[kept].contiguous(), kept
        known = torch.tensor([_name_number(name) for name in names])
        self.images = torch.stack([known, first], dim=1).to(images.device)
        distances = torch.cat([self._distances(images[[i]], self.images[[i], 1]) for i in first.unique().tolist()])
        self.moments = moments_of(distances)

    def _number_of(self, name: str) -> torch.Tensor:
        """Return the number of a support image, of its first copy if there are several; -1 for any other image."""
        found = self.images[self.images[:, 0] == _name_number(name), 1]
        return found[0] if len(found) else self.images.new_tensor(-1)

    def _distances(self, local: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor:
        """Return distances ``(B, h, w)`` of local features ``(B, C, h, w)`` to the nearest patch of the bank.

        Patches of the image's own number ``(B,)`` do not count. Where there are no others, the nearest patch of the
        image itself counts that is not nearby; the distance is 0 where all are nearby.
        """
        grid = local.shape[-2:]
        features = local.flatten(2).transpose(1, 2)
        relative = _relative_distances(features, self.patches)
        lengths = features.square().sum(dim=2)
        if own is None:
            return (lengths + relative.amin(dim=2)).clamp(min=0).sqrt().unflatten(1, grid)
        excluded = self.numbers // grid.numel() == own[:, None]
        nearby = _are_nearby(torch.arange(grid.numel(), device=local.device), self.numbers % grid.numel(), grid[1])
        of_others = relative.masked_fill(excluded[:, None], torch.inf).amin(dim=2)
        elsewhere = relative.masked_fill(nearby, torch.inf).amin(dim=2)
        nearest = of_others.where(~excluded.all(dim=1, keepdim=True), elsewhere)
        distances = (lengths + nearest).clamp(min=0).sqrt()
        return distances.where(distances.isfinite(), 0).unflatten(1, grid)


def moments_of(values: torch.Tensor) -> torch.Tensor:
    """Return what z-scores are made with.

    Args:
        values (torch.Tensor): Values of the support set, of any shape.

    Returns:
        torch.Tensor: Mean and standard deviation, the latter never 0, shape ``(2,)``.

    Example:
        >>> moments_of(torch.tensor([1.0, 3.0])), moments_of(torch.ones(4))
        (tensor([2., 1.]), tensor([1.0000, 0.0100]))
    """
    return torch.stack([values.mean(), values.std(correction=0).clamp(min=LEAST_SPREAD)])


def local_features(patch_features: Sequence[torch.Tensor], image_size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Make patches of several blocks comparable: brought to one grid, unit length per block.

    Averages of features that point in many directions are short. Their length is divided out last, or distances would
    mostly tell how much an image varies around a patch.

    Args:
        patch_features (Sequence[torch.Tensor]): Patch features ``(B, C_j, H_j, W_j)``, one tensor for each tapped
            block.
        image_size (torch.Size | tuple[int, int]): Height and width of the images in pixels.

    Returns:
        torch.Tensor: Features ``(B, C, h, w)`` of the blocks whose patches are at most 16 pixels wide (of the block
        with the smallest, if there is none), on the grid of the largest of these.
    """
    finest = max(block.shape[-1] for block in patch_features)
    enough = min(finest, -(-image_size[-1] // STRIDE))
    used = [block for block in patch_features if block.shape[-1] >= enough]
    grid = min((block.shape[-2:] for block in used), key=lambda size: size[-1])
    return torch.cat([functional.normalize(_resized(block, grid), dim=1) for block in used], dim=1)


def _resized(block: torch.Tensor, grid: torch.Size) -> torch.Tensor:
    """Bring features to a grid; at half the side this is the mean of 2 x 2 patches."""
    return block if block.shape[-2:] == grid else functional.interpolate(block, tuple(grid), mode="bilinear")


def _relative_distances(features: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return squared distances of ``(B, P, C)`` and ``(N, C)`` without the squared length of the former, ``(B, P, N)``.

    One matrix product gives them. The length is the same for all N, so it is added to the smallest only: this tensor is
    large, and every pass over it takes time.
    """
    products = torch.addmm(others.square().sum(dim=1), features.flatten(0, 1), others.T, alpha=-2)
    return products.unflatten(0, features.shape[:2])


def _first_copies(images: torch.Tensor) -> torch.Tensor:
    """Return for each image the number of the first one that is equal: copies are at distance 0 from each other."""
    found: dict[str, int] = {}
    return torch.tensor([found.setdefault(state_hash({"": image}), number) for number, image in enumerate(images)])


def _name_number(name: str) -> int:
    """Return a number of 63 bits that stands for the name of an image."""
    return number_of(name) >> 1


def _are_nearby(some: torch.Tensor, others: torch.Tensor, columns: int) -> torch.Tensor:
    """Tell which positions ``(P,)`` and ``(N,)`` in a grid are close to each other, ``(P, N)``."""
    rows = (some[:, None] // columns - others // columns).abs()
    return torch.maximum(rows, (some[:, None] % columns - others % columns).abs()) <= NEARBY


def _coreset(patches: torch.Tensor, largest: int, seed: int) -> torch.Tensor:
    """Return the numbers of the patches to keep: all, or those that leave no patch far from one that is kept."""
    if len(patches) <= largest:
        return torch.arange(len(patches), device=patches.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # without a third dimension anomalib would project them at random
        found = KCenterGreedy(patches[:, None], largest / len(patches)).select_coreset_idxs()
    return torch.tensor(found, device=patches.device)
