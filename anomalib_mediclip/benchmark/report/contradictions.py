# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Contradictions between the files of a benchmark, listed at the top of the report."""

from sklearn.metrics import roc_auc_score

from anomalib_mediclip.benchmark.results import JobKey, Results, iterate

TOLERANCE = 5e-5  # half of the last printed digit of a percentage


def find_contradictions(results: Results) -> list[str]:
    """Look for contradictions.

    Args:
        results (Results): Results of the benchmark.

    Returns:
        list[str]: A sentence for every support set that differs between models, for every support set of which images
        were tested, and for every job whose scores are missing or do not give the AUROC of ``results.csv``.
    """
    return [*_different_support_sets(results), *_tested_support_images(results), *_different_scores(results)]


def _different_support_sets(results: Results) -> list[str]:
    """Compare the support sets of models that should have the same."""
    trained = results.rows[results.rows["support_set_hash"] != ""]
    return [
        f"{data}, k = {k_shot}, seed {seed}: the models did not learn from the same support set ("
        + ", ".join(f"{row.model} {row.support_set_hash[:8]}" for row in iterate(jobs))
        + "); their figures cannot be compared."
        for (data, k_shot, seed), jobs in trained.groupby(["data", "k_shot", "seed"], sort=False)
        if jobs["support_set_hash"].nunique() > 1
    ]


def _tested_support_images(results: Results) -> list[str]:
    """Say where images of the support set are test images too."""
    rows = results.rows.assign(shared=results.rows["shared_images"].fillna(0).astype(int))
    counts = rows.groupby(["data", "k_shot", "seed"], sort=False)["shared"].max()
    shared = counts[counts > 0].reset_index()
    return [
        f"{data}, k = {k_shot}: test images that are in the support set as well ("
        + ", ".join(f"seed {row.seed}: {row.shared}" for row in iterate(of_size))
        + "); the figures are optimistic."
        for (data, k_shot), of_size in shared.groupby(["data", "k_shot"], sort=False)
    ]


def _different_scores(results: Results) -> list[str]:
    """Compare the AUROC of the raw scores with that of the table."""
    found = []
    for row in iterate(results.rows[results.rows["image_auroc"].notna()]):
        table = results.scores.get(row.data)
        job = JobKey.of_row(row).column
        if table is None or job not in table:
            found.append(f"{row.data}: scores of {job} are missing; curves and comparisons are without it.")
            continue
        tested = table[table[job].notna()]
        if len(tested) < len(table):
            found.append(
                f"{row.data}: {job} was tested on {len(tested)} of {len(table)} images. Curves and comparisons take "
                "the images that all of their models have; figures in tables do not."
            )
        ours = roc_auc_score(tested["label"], tested[job])
        if not abs(ours - row.image_auroc) <= TOLERANCE:
            found.append(f"{row.data}: scores of {job} give an AUROC of {ours:.4f}, the table {row.image_auroc:.4f}.")
    return found
