# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Report in HTML and Markdown; the same folder always gives the same bytes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from anomalib_mediclip.atomic import write_whole
from anomalib_mediclip.benchmark.report import figures, tables
from anomalib_mediclip.benchmark.report.contradictions import find_contradictions
from anomalib_mediclip.benchmark.report.heat_maps import HIGHEST, draw_grid
from anomalib_mediclip.benchmark.report.significance import CONFIDENCE, REPLICATES, against_the_best, compare_models
from anomalib_mediclip.benchmark.report.transfer import build_matrices
from anomalib_mediclip.benchmark.results import METRICS, TRIVIAL, Results, iterate, read_published, read_results
from anomalib_mediclip.drawing import colour_scale

SHORT_HASH = 8  # characters


def write_report(
    folder: Path, published: Sequence[Path] = (), pictures: bool = True, output: Path | None = None
) -> Path:
    """Write the report of a benchmark.

    Writes ``report.html`` (one file that loads nothing), ``report.md``, ``significance.csv``, ``tables/<metric>.csv``,
    all figures in percent, and ``heat_maps/<data>.png``, models x images as the paper's Figure 3.

    Args:
        folder (Path): Folder of the benchmark, with ``results.csv``, ``scores/`` and perhaps ``examples/``.
        published (Sequence[Path], optional): CSV files of figures to show beside ours, in percent; see
            :func:`~.results.read_published`. Defaults to ``()``.
        pictures (bool, optional): Whether to show test images with their heat maps. Defaults to ``True``.
        output (Path | None, optional): Folder to write to. Defaults to ``None``, the folder itself.

    Returns:
        Path: ``report.html``.

    Raises:
        FileNotFoundError: If there is no ``results.csv``.
        ValueError: If a table has no rows, or lacks columns.
    """
    results, theirs = read_results(folder), read_published(published)
    summaries = {metric: tables.summarise(results, metric, theirs) for metric in METRICS}
    shown = [table for summary in summaries.values() if (table := tables.build_table(results, summary))]
    comparisons = compare_models(results)
    examples = results.examples if pictures else {}
    output = output or folder
    (output / "tables").mkdir(parents=True, exist_ok=True)
    for table in shown:
        summaries[table.metric].to_csv(output / "tables" / f"{table.metric}.csv", index=False)
    comparisons.round(6).to_csv(output / "significance.csv", index=False)
    grids = [draw_grid(name, arrays, results.models) for name, arrays in examples.items()]
    for grid in grids:
        (output / "heat_maps").mkdir(exist_ok=True)
        grid.picture.save(output / "heat_maps" / f"{grid.name}.png")
    content = {
        "tables": shown,
        "matrices": build_matrices(results, summaries["image_auroc"]),
        "comparisons": _group(against_the_best(comparisons, summaries["image_auroc"]), "data"),
        "costs": _group(tables.build_costs(results), "model"),
        "over_k": _as_markup(figures.draw_over_k(results, summaries["image_auroc"])),
        "roc": _as_markup(figures.draw_roc(results)),
        "grids": grids,
        "pictures": pictures,
        "note": results.note,
        **_facts(results),
    }
    for name in ("report.md", "report.html"):
        text = _environment().get_template(f"{name}.jinja").render(content)
        write_whole(output / name, text)
    return output / "report.html"


def _facts(results: Results) -> dict[str, Any]:
    """Return what the templates say about the benchmark as a whole."""
    rows = results.rows
    failed = rows[rows["error"] != ""]
    trained = rows[rows["support_set_hash"] != ""].drop_duplicates(["trained_on", "k_shot", "seed", "support_set_hash"])
    return {
        "data_sets": results.data_sets,
        "models": results.models,
        "k_shots": results.k_shots,
        "seeds": sorted(rows["seed"].dropna().unique()),
        "looks": figures.assign_looks(results.models),
        "test_images": {name: table["label"].value_counts().to_dict() for name, table in results.scores.items()},
        "jobs": len(rows.drop_duplicates(["trained_on", "tested_on", "model", "k_shot", "seed"])),
        "failures": [(_title(row), row.error) for row in iterate(failed)],
        "contradictions": find_contradictions(results),
        "support_sets": [
            (row.trained_on, row.k_shot, row.seed, row.support_set_hash[:SHORT_HASH]) for row in iterate(trained)
        ],
        "devices": [device for device in rows["device"].unique() if device],
        "versions": [versions for versions in rows["versions"].unique() if versions],
    }


def _group(table: pd.DataFrame, column: str) -> list[tuple[str, list[dict[Any, Any]]]]:
    """Return the rows of every value of a column, in their order."""
    return [(str(name), rows.to_dict("records")) for name, rows in table.groupby(column, sort=False)]


def _title(row: Any) -> str:
    """Return the name of a job for a reader."""
    return f"{row.model}, {row.data}" + ("" if pd.isna(row.k_shot) else f", k = {row.k_shot}, seed {row.seed}")


def _as_markup(drawings: dict[str, str]) -> list[Markup]:
    """Return drawings so that the template does not escape them: our own SVG, in which matplotlib has escaped names."""
    return [Markup(svg) for svg in drawings.values()]  # noqa: S704


def _environment() -> Environment:
    """Return the environment of the templates."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(enabled_extensions=("html.jinja",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"points": _format_points, "cell": _escape_markdown}
    environment.globals |= {
        "trivial": TRIVIAL,
        "partly_failed": tables.PARTLY_FAILED,
        "partly_tested": tables.PARTLY_TESTED,
        "no_better": tables.NO_BETTER_THAN_TRIVIAL,
        "replicates": REPLICATES,
        "confidence": CONFIDENCE,
        "highest": HIGHEST,
        "colour_scale": colour_scale(),
    }
    return environment


def _format_points(points: float) -> str:
    """Format a difference in points with its sign; no sign where zero is printed."""
    text = f"{points:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", tables.MINUS)


def _escape_markdown(text: str) -> str:
    """Escape what would change the layout of a table or a list."""
    return re.sub(r"([\\|*_`<])", r"\\\1", text)
