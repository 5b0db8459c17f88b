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
SAME = 0.03  # largest distance of a patch to itself, computed again; to other images it is 1.1 on average (lite, BUSI)
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

    def remember(
        self,
        portions: Iterable[Sequence[torch.Tensor]],
        image_size: torch.Size | tuple[int, int],
        names: Sequence[str],
        seed: int = 0,
    ) -> None:
        """Fill the bank anew.

        Args:
            portions (Iterable[Sequence[torch.Tensor]]): Patch features of the support images, some images at a time.
            image_size (torch.Size | tuple[int, int]): Height and width of the images in pixels.
            names (Sequence[str]): Names of the support images.
            seed (int, optional): Seed of the coreset. Defaults to ``0``.
        """
        self.patches, self.numbers, self.images = self.patches[:0], self.numbers[:0], self.images[:0]
        self.add(portions, image_size, names, seed)

    @torch.no_grad()
    def add(
        self,
        portions: Iterable[Sequence[torch.Tensor]],
        image_size: torch.Size | tuple[int, int],
        names: Sequence[str],
        seed: int = 0,
    ) -> None:
        """Add support images to those of the bank.

        As long as the bank holds all patches of its images, it becomes what :meth:`remember` makes of all of them. A
        coreset does not say how far the patches that it left out are from new ones: the moments of before are then
        pooled with those of the added images.

        Args:
            portions (Iterable[Sequence[torch.Tensor]]): Patch features of new support images, some images at a time.
            image_size (torch.Size | tuple[int, int]): Height and width of the images in pixels.
            names (Sequence[str]): Names of these images, which no image of the bank has.
            seed (int, optional): Seed of the coreset. Defaults to ``0``.
        """
        images = torch.cat([local_features(portion, image_size) for portion in portions])
        held, before = self.images[:, 1].unique(), self._whole_images(images.shape[1:])
        first = (_first_copies(images) + len(self.images)).to(images.device)
        added = first.unique()
        distinct = images[added - len(self.images)]
        places = torch.arange(distinct[0, 0].numel(), device=images.device)
        patches = torch.cat([self.patches.reshape(-1, images.shape[1]), _patches_of(distinct)])
        kept = _coreset(patches, max(1, LARGEST_BANK // patches.shape[1]), seed)
        self.patches = patches[kept].contiguous()
        self.numbers = torch.cat([self.numbers, (added[:, None] * len(places) + places).flatten()])[kept]
        known = torch.tensor([_name_number(name) for name in names], device=images.device)
        self.images = torch.cat([self.images, torch.stack([known, first], dim=1)])
        if before is None:
            self.moments = pooled_moments(self.moments, len(held), self._moments(distinct, added), len(added))
        else:
            self.moments = self._moments(torch.cat([before, distinct]), torch.cat([held, added]))

    @torch.no_grad()
    def holds(self, patch_features: Sequence[torch.Tensor], image_size: torch.Size | tuple[int, int]) -> torch.Tensor:
        """Tell which images are in the bank already, by what the encoder sees of them.

        Args:
            patch_features (Sequence[torch.Tensor]): Patch features ``(B, C_j, H_j, W_j)``, one tensor for each tapped
                block.
            image_size (torch.Size | tuple[int, int]): Height and width of the images in pixels.

        Returns:
            torch.Tensor: bool ``(B,)``; true where all patches that the bank holds of an image are those of this one,
            each in its place.
        """
        patches = local_features(patch_features, image_size).flatten(2).transpose(1, 2)
        owners, places = self.numbers // patches.shape[1], self.numbers % patches.shape[1]
        same = ((patches[:, places] - self.patches).norm(dim=2) <= SAME).long()
        counts = torch.zeros(len(patches), len(self.images), dtype=torch.int64, device=patches.device)
        agreeing = counts.index_add(1, owners, same)
        return ((agreeing == owners.bincount(minlength=len(self.images))) & (agreeing > 0)).any(dim=1)

    def _whole_images(self, shape: torch.Size) -> torch.Tensor | None:
        """Return the features ``(m, C, h, w)`` of the images of the bank; None where a coreset left patches out."""
        places = shape[1] * shape[2]
        if len(self.numbers) != places * len(self.images[:, 1].unique()):
            return None
        return self.patches.reshape(-1, places, shape[0]).transpose(1, 2).unflatten(2, shape[1:])

    def _moments(self, images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return the moments of the distances of images of the bank ``(B, C, h, w)`` to its other images."""
        own = zip(images.split(1), numbers.split(1), strict=True)
        return moments_of(torch.cat([self._distances(image, number) for image, number in own]))

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


def pooled_moments(some: torch.Tensor, number: int, others: torch.Tensor, other_number: int) -> torch.Tensor:
    """Return the moments of two groups of values together.

    Args:
        some (torch.Tensor): Mean and standard deviation of the first group, shape ``(2,)``.
        number (int): Size of the first group, in any unit, such as images.
        others (torch.Tensor): Mean and standard deviation of the second group, shape ``(2,)``.
        other_number (int): Size of the second group in the same unit.

    Returns:
        torch.Tensor: Mean and standard deviation, shape ``(2,)``.

    Example:
        >>> pooled_moments(moments_of(torch.tensor([1.0, 3.0])), 2, moments_of(torch.tensor([5.0, 7.0, 9.0])), 3)
        tensor([5.0000, 2.8284])
    """
    shares = torch.tensor([number, other_number], dtype=torch.float64) / (number + other_number)
    means, spreads = torch.stack([some, others]).double().cpu().T
    mean = (shares * means).sum()
    variance = (shares * (spreads.square() + (means - mean).square())).sum()
    return torch.stack([mean, variance.sqrt()]).to(some)


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


def _patches_of(images: torch.Tensor) -> torch.Tensor:
    """Return the patches ``(B * h * w, C)`` of images ``(B, C, h, w)``."""
    return images.flatten(2).transpose(1, 2).flatten(0, 1)


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
