# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Warnings that are ignored while a training starts, and no longer."""

import warnings

import pytest

from anomalib_mediclip.models.components.expected_warnings import ExpectedWarnings


@pytest.mark.parametrize("end", ["on_train_batch_start", "on_fit_end", "on_exception"])
def test_only_expected_warnings_are_ignored_and_only_until_the_first_batch(end: str) -> None:
    callback = ExpectedWarnings(r"Found \d+ module")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        callback.on_fit_start(None, None)
        warnings.warn("Found 3 modules in eval mode", stacklevel=1)
        warnings.warn("another warning", stacklevel=1)
        getattr(callback, end)(None, None)
        assert warnings.filters == filters
        warnings.warn("Found 4 modules in eval mode", stacklevel=1)
    assert [str(warning.message)[:7] for warning in shown] == ["another", "Found 4"]
