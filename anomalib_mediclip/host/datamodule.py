# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's data module for data sets that come with all their splits."""

from abc import abstractmethod

from anomalib.data import AnomalibDataModule


class FixedSplitsDataModule(AnomalibDataModule):
    """Data module whose subclass makes the training, validation and test set, which stay as they are made.

    anomalib would move training images into a test set that has no normal image.
    """

    @abstractmethod
    def make_splits(self) -> None:
        """Set ``train_data``, ``val_data`` and ``test_data``, unless they are there already."""

    def _setup(self, _stage: str | None = None) -> None:
        self.make_splits()

    def _create_test_split(self) -> None:
        """Leave the splits as they are."""
