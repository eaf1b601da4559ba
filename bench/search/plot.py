"""Draws recall against queries a second as SVG."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.search.curves import Curve, Point, frontier

OURS = "#c2410c"
_COLOURS: Mapping[str, str] = {
    "hnswlib": "#1d4ed8",
    "USearch HNSW": "#0f766e",
    "Faiss HNSW": "#7c3aed",
    "Faiss IVF SQ8": "#64748b",
    "Faiss IVF PQ fast scan": "#0891b2",
    "Faiss IVF RaBitQ": "#a16207",
    "Chroma": "#be185d",
    "LanceDB": "#4d7c0f",
}
_LOWEST_RECALL = 0.8
_GAP = 0.045
"""Between labels, of the height of a plot."""


def draw(curves: Sequence[Curve], title: str, path: Path) -> bool:
    """Draw a plot per data set, side by side; returns False if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "shashin", "font.family": "sans-serif"}
    )
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    names = sorted({curve.data for curve in curves})
    figure, axes = pyplot.subplots(1, len(names), figsize=(7.2 * len(names), 5.6), squeeze=False)
    for plot, name in zip(axes[0], names, strict=True):
        _draw_one(plot, name, [curve for curve in curves if curve.data == name])
    figure.suptitle(title, fontsize=13, x=0.01, ha="left", fontweight="bold")
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _draw_one(plot: Any, name: str, curves: Sequence[Curve]) -> None:
    ends: list[tuple[Point, str, str]] = []
    for curve in curves:
        points = [p for p in frontier(curve.points) if p.recall >= _LOWEST_RECALL]
        if not points:
            continue
        ours = curve.name not in _COLOURS
        colour = _COLOURS.get(curve.name, OURS)
        plot.plot(
            [_spread(point.recall) for point in points],
            [point.per_second for point in points],
            color=colour,
            linewidth=2.6 if ours else 1.4,
            linestyle="--" if ours and curve.name.endswith(", 1 shard") else "-",
            marker="o",
            markersize=5 if ours else 3.2,
            zorder=3 if ours else 2,
        )
        ends.append((points[-1], curve.name, colour))
    plot.set_yscale("log")
    plot.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    ticks = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
    plot.set_xticks([_spread(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    plot.set_xlim(_spread(_LOWEST_RECALL), _spread(0.9995))
    plot.set_xlabel("recall@10")
    plot.set_ylabel("queries a second, one thread, one query at a time")
    plot.set_title(f"{name} data", loc="left", fontsize=11)
    plot.grid(visible=True, which="major", color="#e2e8f0", linewidth=0.8)
    plot.spines[["top", "right"]].set_visible(False)
    _label(plot, ends)


def _spread(recall: float) -> float:
    """Return where a recall is on the axis, on which each nine takes as much room."""
    return -math.log10(max(1e-4, 1.0 - min(recall, 0.9995)))


def _label(plot: Any, ends: Sequence[tuple[Point, str, str]]) -> None:
    """Write the names to the right of the plot, apart, each with a line from its curve's end."""
    to_axes = plot.transAxes.inverted()
    heights = [
        float(to_axes.transform(plot.transData.transform((1.0, end.per_second)))[1])
        for end, _, _ in ends
    ]
    for (end, name, colour), place in zip(ends, apart(heights, _GAP), strict=True):
        plot.annotate(
            name,
            xy=(_spread(end.recall), end.per_second),
            xytext=(1.03, place),
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=9,
            fontweight="bold" if colour == OURS else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.5},
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return the heights moved as little as a sweep from below needs, so that none are closer than ``gap``."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for low, high in pairwise(order):
        placed[high] = max(placed[high], placed[low] + gap)
    return placed
