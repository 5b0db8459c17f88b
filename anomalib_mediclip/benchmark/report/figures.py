# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Line figures as small SVG drawings, one panel per data set, for a page that lays them out side by side."""

import io
import re
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from anomalib_mediclip.benchmark.results import TRIVIAL, Results

PANEL_SIZE = (3.5, 2.9)  # inches
ROC_POINTS = 101
GREY = "#666666"
DODGE = 0.07  # of the distance between two sizes of the support set, so that error bars do not hide each other
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollar signs stays as it is
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same layout everywhere; the page sets its own font
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.5,
}
# Okabe and Ito's colours, told apart by colour-blind readers, in an order that also differs in brightness
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼"}


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a model in the figures.

    Attributes:
        colour (str): Hexadecimal colour.
        marker (str): Marker of matplotlib.
        line (str): Style of matplotlib's line; the second time round the colours it is dashed.
    """

    colour: str
    marker: str
    line: str

    @property
    def glyph(self) -> str:
        """The marker as a character, for the legend."""
        return MARKERS[self.marker]


def assign_looks(models: list[str]) -> dict[str, Look]:
    """Give every model a colour and a marker; no two of 35 models look the same.

    Args:
        models (list[str]): Models in the order of the configuration.

    Returns:
        dict[str, Look]: Look by model.
    """
    markers = list(MARKERS)
    return {
        model: Look(COLOURS[index % len(COLOURS)], markers[index % len(markers)], "-" if index < len(COLOURS) else "--")
        for index, model in enumerate(models)
    }


def draw_over_k(results: Results, summary: pd.DataFrame) -> dict[str, str]:
    """Draw Image-AUROC over the size of the support set, with the standard deviation over seeds as error bars.

    Args:
        results (Results): Results of the benchmark.
        summary (pd.DataFrame): Summary of Image-AUROC, from :func:`~.tables.summarise`.

    Returns:
        dict[str, str]: SVG by data set; all on the same vertical scale. None where there is only one size.
    """
    if len(results.k_shots) < 2:
        return {}
    values = summary[summary["mean"].notna()]
    spread = values["std"].fillna(0)
    limits = (float((values["mean"] - spread).min()) - 2, min(float((values["mean"] + spread).max()) + 2, 101))
    drawings = {}
    for data, of_data in values.groupby("data", sort=False):
        name = f"Image-AUROC over k on {data}"
        with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
            figure, axes = _panel(str(data), "k, normal images to learn from", "Image-AUROC (%)")
            axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
            axes.set_ylim(limits)
            axes.set_xticks(range(len(results.k_shots)), [str(k_shot) for k_shot in results.k_shots])
            axes.set_xlim(-0.4, len(results.k_shots) - 0.6)
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            _draw_models_over_k(axes, of_data, results)
            drawings[str(data)] = _to_svg(figure, name)
    return drawings


def draw_roc(results: Results) -> dict[str, str]:
    """Draw ROC curves at the largest size of each support set, averaged over seeds at every false positive rate.

    Args:
        results (Results): Results of the benchmark.

    Returns:
        dict[str, str]: SVG by data set.
    """
    drawings = {}
    for data, table in results.scores.items():
        name = f"ROC curves on {data}"
        with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
            figure, axes = _panel(data, "false positive rate", "true positive rate")
            axes.set_aspect("equal")
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
            axes.plot([0, 1], [0, 1], ":", color="#bbbbbb", linewidth=1)
            _draw_roc_curves(axes, data, table, results)
            drawings[data] = _to_svg(figure, name)
    return drawings


def mean_roc(scores: list[np.ndarray], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average ROC curves vertically.

    Args:
        scores (list[np.ndarray]): Scores of every seed, each of shape ``(N,)``.
        labels (np.ndarray): Ground truth of shape ``(N,)``, 1 where anomalous; both classes occur.

    Returns:
        tuple[np.ndarray, np.ndarray]: False positive rate and mean true positive rate, from (0, 0) to (1, 1).

    Example:
        >>> rate, found = mean_roc([np.array([1.0, 2.0, 3.0, 4.0])], np.array([0, 0, 1, 1]))
        >>> float(rate[0]), float(found[0]), float(found[1:].min())
        (0.0, 0.0, 1.0)
    """
    grid = np.linspace(0, 1, min(ROC_POINTS, int((labels == 0).sum()) + 1))
    # at a jump, interp takes the last of the points with the same false positive rate, which is the highest
    curves = [np.interp(grid, *roc_curve(labels, of_seed, drop_intermediate=False)[:2]) for of_seed in scores]
    return np.concatenate([[0], grid]), np.concatenate([[0], np.mean(curves, axis=0)])


def _panel(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Return an empty figure with one axes."""
    figure = Figure(figsize=PANEL_SIZE)
    axes = figure.add_axes((0.15, 0.17, 0.82, 0.72))
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    return figure, axes


def _draw_models_over_k(axes: Axes, of_data: pd.DataFrame, results: Results) -> None:
    """Draw a line for every model and the level of the trivial baseline."""
    looks = assign_looks(results.models)
    for index, (model, look) in enumerate(looks.items()):
        of_model = of_data[of_data["model"] == model].sort_values("k_shot")
        if not of_model.empty:
            shift = DODGE * (index - (len(looks) - 1) / 2)
            positions = [results.k_shots.index(k_shot) + shift for k_shot in of_model["k_shot"]]
            deviation = of_model["std"].fillna(0)
            axes.errorbar(
                positions, of_model["mean"], deviation, color=look.colour, marker=look.marker, linestyle=look.line,
                markersize=5, capsize=2.5,
            )  # fmt: skip
    for level in of_data.loc[of_data["model"] == TRIVIAL, "mean"]:
        axes.axhline(level, linestyle=":", color=GREY)


def _draw_roc_curves(axes: Axes, data: str, table: pd.DataFrame, results: Results) -> None:
    """Draw a curve for every model, and that of the trivial baseline."""
    curves = {
        model: (list(results.columns(data, model, results.largest_k_shot(data)).values()), look.colour, look.line)
        for model, look in assign_looks(results.models).items()
    }
    curves[TRIVIAL] = ([TRIVIAL] if TRIVIAL in table else [], GREY, ":")
    drawn = [column for columns, _, _ in curves.values() for column in columns]
    common = table[drawn].notna().all(axis="columns")  # images that all were tested on
    labels = table.loc[common, "label"].to_numpy()
    if len(set(labels)) < 2:
        return
    for columns, colour, line in curves.values():
        if columns:
            scores = [table.loc[common, column].to_numpy() for column in columns]
            axes.plot(*mean_roc(scores, labels), line, color=colour)


def _to_svg(figure: Figure, name: str) -> str:
    """Return an SVG element, without the ids that nothing refers to: they would occur twice in a page."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    svg = buffer.getvalue()
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(
        r' id="([^"]*)"', lambda match: match.group() if match.group(1) in used else "", svg[svg.index("<svg") :]
    )
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)
