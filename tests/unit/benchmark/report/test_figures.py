# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Line figures."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_mediclip.benchmark.report.figures import GREY, assign_looks, draw_over_k, draw_roc, mean_roc
from anomalib_mediclip.benchmark.report.tables import summarise
from anomalib_mediclip.benchmark.results import read_published, read_results
from tests.unit.benchmark.small_benchmark import BROKEN, as_results, job


def test_curve_encloses_the_auroc() -> None:
    """With as many points as normal images and no ties, the steps of the curve sum up to the exact AUROC."""
    labels = np.array([0] * 20 + [1] * 30)
    seeds = [np.random.default_rng(seed).normal(size=50) + labels for seed in range(3)]
    rate, found = mean_roc(seeds, labels)
    steps = (np.diff(rate) * found[:-1]).sum()
    assert steps == pytest.approx(np.mean([roc_auc_score(labels, scores) for scores in seeds]), abs=1e-9)


def test_curve_of_one_tie_is_the_diagonal() -> None:
    rate, found = mean_roc([np.zeros(6)], np.array([0, 0, 0, 1, 1, 1]))
    assert found == pytest.approx(rate)


def test_models_look_different() -> None:
    looks = assign_looks([str(number) for number in range(35)])
    assert len({(look.colour, look.marker) for look in looks.values()}) == 35


def test_panels(benchmark: Path) -> None:
    results = read_results(benchmark)
    panels = draw_roc(results)
    assert list(panels) == ["BUSI", "BrainMRI"]
    for model, look in assign_looks(results.models).items():
        assert (look.colour in panels["BrainMRI"]) == (model != BROKEN)  # which failed everywhere
    assert GREY in panels["BrainMRI"]  # mean brightness


def test_names_are_text_not_markup() -> None:
    """Dollar signs start no formula, angle brackets no element."""
    results = as_results(*(job('<a>"$x^2$"', k_shot, 0, "A", image_auroc=0.9) for k_shot in (4, 8)))
    (svg,) = draw_over_k(results, summarise(results, "image_auroc", read_published([]))).values()
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'Image-AUROC over k on <a>"$x^2$"'
    assert '<a>"$x^2$"' in "".join(root.itertext())
