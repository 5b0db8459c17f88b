# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Base of the data sets: a list of images that may be slices of volumes."""

from pathlib import Path

from anomalib.data import AnomalibDataset
from pandas import DataFrame

from anomalib_mediclip.data.samples import require_files


class ListedDataset(AnomalibDataset):
    """Data set whose images may be slices; anomalib refuses them, because no file has their path."""

    @property
    def samples(self) -> DataFrame:
        """Listed images, in order of their paths.

        Raises:
            FileNotFoundError: When set, if the file of an image does not exist.
        """
        return self._listed

    @samples.setter
    def samples(self, samples: DataFrame) -> None:
        require_files(Path(path) for path in samples["image_path"])
        self._listed = samples.sort_values(by="image_path", ignore_index=True)
