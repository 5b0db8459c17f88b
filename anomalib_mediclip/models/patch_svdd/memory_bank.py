# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Memory bank of the embeddings of all normal patches, and exact distances to the nearest one (paper, section 3.4)."""

from dataclasses import dataclass

import torch

from anomalib_mediclip.models.components.fitted_state import FittedState

QUERIES_AT_ONCE = 4096
ROWS_AT_ONCE = 8192  # with as many queries as above a tile takes 134 MB
EXCLUDED = 1e6  # added to squared distances, which are 4 D at most


@dataclass(frozen=True)
class Grid:
    """Places of the patches of an image.

    Args:
        side (int): Side of the patches in pixels.
        stride (int): Distance of neighbouring patches in pixels.
        rows (int): Patches from top to bottom.
        columns (int): Patches from left to right.
    """

    side: int
    stride: int
    rows: int
    columns: int

    def __len__(self) -> int:
        """Return the number of patches."""
        return self.rows * self.columns

    def overlap(self, some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Tell which patches overlap.

        Args:
            some (torch.Tensor): Numbers of patches ``(N,)``.
            others (torch.Tensor): Numbers of patches ``(M,)``.

        Returns:
            torch.Tensor: bool ``(N, M)``.
        """
        rows = (some[:, None] // self.columns - others // self.columns).abs()
        columns = (some[:, None] % self.columns - others % self.columns).abs()
        return torch.maximum(rows, columns) * self.stride < self.side


class MemoryBank(FittedState):
    """Embeddings of all patches of the support set, of both sizes, image by image; none is left out.

    Attributes:
        large (torch.Tensor): Embeddings of the patches of 64 pixels minus their mean, ``(k P, D)``.
        small (torch.Tensor): The same of those of 32 pixels.
        large_mean (torch.Tensor): Mean ``(D,)``.
        small_mean (torch.Tensor): Mean ``(D,)``.
    """

    CONTENT = ("large", "small", "large_mean", "small_mean")

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = torch.zeros(0, 0), torch.zeros(0, 0)
        self.large_mean, self.small_mean = torch.zeros(0), torch.zeros(0)

    def remember(self, large: torch.Tensor, small: torch.Tensor) -> None:
        """Fill the bank.

        Args:
            large (torch.Tensor): Embeddings ``(k, D, h, w)`` of the patches of 64 pixels.
            small (torch.Tensor): Embeddings ``(k, D, h', w')`` of the patches of 32 pixels.
        """
        large_rows, small_rows = _rows(large), _rows(small)
        self.large_mean, self.small_mean = large_rows.mean(dim=0), small_rows.mean(dim=0)
        # distances do not change, and products of numbers around 0 are more exact
        self.large, self.small = large_rows - self.large_mean, small_rows - self.small_mean

    @property
    def spreads(self) -> tuple[float, float]:
        """Standard deviation of the embeddings of both sizes, as a mean over dimensions; near 0 after a collapse."""
        large, small = (rows.square().mean(dim=0).sqrt().mean().item() for rows in (self.large, self.small))
        return large, small

    def distances(
        self, large: torch.Tensor, small: torch.Tensor, grids: tuple[Grid, Grid], own: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the distance of every patch to the nearest one of the bank.

        Args:
            large (torch.Tensor): Embeddings ``(B, D, h, w)`` of the patches of 64 pixels.
            small (torch.Tensor): Embeddings ``(B, D, h', w')`` of the patches of 32 pixels.
            grids (tuple[Grid, Grid]): Their places.
            own (torch.Tensor | None, optional): Number ``(B,)`` of the support image that each image is, -1 for none;
                its patches do not count. If there is no other, patches of it count that do not overlap. Defaults to
                ``None``: none is.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Distances ``(B, 1, h, w)`` and ``(B, 1, h', w')``, 0 or more.
        """
        banks = (self.large, self.large_mean), (self.small, self.small_mean)
        found = []
        for embeddings, (bank, mean), grid in zip((large, small), banks, grids, strict=True):
            excluded = None if own is None else Excluded(own, grid, len(bank) // len(grid))
            rows = nearest(_rows(embeddings) - mean, bank, excluded)
            found.append(rows.unflatten(0, (-1, 1, grid.rows, grid.columns)))
        return found[0], found[1]


@dataclass(frozen=True)
class Excluded:
    """Pairs of queries and rows of a bank that do not count.

    Args:
        own (torch.Tensor): Number ``(B,)`` of the support image that each queried image is, -1 for none.
        grid (Grid): Places of the patches of an image.
        images (int): Number of images in the bank.
    """

    own: torch.Tensor
    grid: Grid
    images: int

    def __call__(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return which pairs do not count: bool ``(Q, N)`` for numbers of queries ``(Q,)`` and of rows ``(N,)``."""
        of_image = len(self.grid)
        same = self.own[queries // of_image][:, None] == rows // of_image
        return same & self.grid.overlap(queries % of_image, rows % of_image) if self.images == 1 else same


def nearest(queries: torch.Tensor, bank: torch.Tensor, excluded: Excluded | None = None) -> torch.Tensor:
    """Compute distances to the nearest rows, exactly.

    The nearest row is found by matrix products, tile by tile: |q - b|^2 = |q|^2 + |b|^2 - 2 q'b. Near copies lose all
    digits in that formula, so the distance to the row that was found is computed from the difference.

    Args:
        queries (torch.Tensor): Vectors ``(Q, D)``.
        bank (torch.Tensor): Vectors ``(N, D)``.
        excluded (Excluded | None, optional): Pairs that do not count, unless all pairs of a query do not.
            Defaults to ``None``: all count.

    Returns:
        torch.Tensor: Distances ``(Q,)``.
    """
    if torch.compiler.is_compiling():  # an exported graph has a number of queries that is not known here
        return _nearest(queries, bank)
    numbers = torch.arange(len(queries), device=queries.device)
    parts = zip(queries.split(QUERIES_AT_ONCE), numbers.split(QUERIES_AT_ONCE), strict=True)
    return torch.cat([_nearest(part, bank, excluded, of_part) for part, of_part in parts])


def _nearest(
    queries: torch.Tensor,
    bank: torch.Tensor,
    excluded: Excluded | None = None,
    numbers: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the distances of some queries; ``numbers`` are theirs among all queries."""
    number = queries.shape[0]  # which an export knows as a symbol; len() would make it a constant
    least, winner = queries.new_full((number,), torch.inf), queries.new_zeros(number, dtype=torch.int64)
    for start in range(0, len(bank), ROWS_AT_ONCE):
        tile = bank[start : start + ROWS_AT_ONCE]
        relative = torch.addmm(tile.square().sum(dim=1), queries, tile.T, alpha=-2)
        if excluded is not None and numbers is not None:
            rows = torch.arange(start, start + len(tile), device=bank.device)
            relative = relative + EXCLUDED * excluded(numbers, rows)
        of_tile, position = relative.min(dim=1)
        winner = torch.where(of_tile < least, position + start, winner)
        least = torch.minimum(of_tile, least)
    return torch.linalg.vector_norm(queries - bank[winner], dim=1)


def _rows(embeddings: torch.Tensor) -> torch.Tensor:
    """Return embeddings ``(B, D, h, w)`` as rows ``(B h w, D)``, image by image."""
    return embeddings.flatten(2).transpose(1, 2).flatten(0, 1)
