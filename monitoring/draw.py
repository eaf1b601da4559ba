"""Draws dashboards from their JSON and a Prometheus, for review without a Grafana.

``python -m monitoring.draw --prometheus http://127.0.0.1:9090 --out FOLDER``. It shows what the panels have
to show, in their units and with their thresholds; how Grafana lays them out is Grafana's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.dates as matplotlib_dates
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, PercentFormatter

from monitoring.prometheus_api import Series, instant, over_time, with_variables
from shashin.terminal.console import echo

_COLUMNS = 24
_UNIT_TITLES = {
    "s": "seconds",
    "bytes": "bytes",
    "Bps": "bytes/s",
    "reqps": "requests/s",
    "ops": "per second",
    "percentunit": "share",
    "short": "",
    "": "",
}
_COLOURS = {"green": "#2e8b57", "orange": "#d98200", "red": "#c0392b"}
_LEGEND_SERIES = 8


def draw(board: Mapping[str, Any], address: str, seconds: float, path: Path) -> None:
    """Draw one dashboard of the last ``seconds`` to a PNG."""
    mpl.use("Agg")
    rows = _rows(board["panels"])
    heights = [max(panel["gridPos"]["h"] for panel in row) for row in rows]
    figure = plt.figure(figsize=(20, 0.45 * sum(heights) + 1), layout="constrained")
    figure.suptitle(board["title"], fontsize=15)
    grid = figure.add_gridspec(len(rows), _COLUMNS, height_ratios=heights)
    end = time.time()
    for number, row in enumerate(rows):
        for panel in row:
            at = panel["gridPos"]
            axes = figure.add_subplot(grid[number, at["x"] : at["x"] + at["w"]])
            if panel["type"] == "row":
                axes.set_axis_off()
                axes.text(0, 0, panel["title"], fontsize=12, weight="bold", va="center")
                continue
            axes.set_title(panel["title"], fontsize=10)
            if panel["type"] == "stat":
                _number(axes, panel, address)
            else:
                _lines(axes, panel, address, end - seconds, end)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _rows(panels: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    by_top: dict[int, list[Mapping[str, Any]]] = {}
    for panel in panels:
        by_top.setdefault(panel["gridPos"]["y"], []).append(panel)
    return [by_top[top] for top in sorted(by_top)]


def _number(axes: Axes, panel: Mapping[str, Any], address: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    found = [
        one
        for target in panel["targets"]
        for one in instant(address, with_variables(target["expr"], rate_interval="30s"))
    ]
    if not found:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="grey")
        return
    value = found[0].points[-1][1]
    axes.set_facecolor(_colour(panel, value))
    text = _shown(value, panel["fieldConfig"]["defaults"].get("unit", ""))
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=18, color="white")


def _lines(axes: Axes, panel: Mapping[str, Any], address: str, start: float, end: float) -> None:
    series: list[tuple[str, Series]] = []
    for target in panel["targets"]:
        expr = with_variables(target["expr"], rate_interval="30s")
        found = over_time(address, expr, start, end, (end - start) / 120)
        series += [(one.named(target.get("legendFormat", "")), one) for one in found]
    if not series:
        axes.text(
            0.5, 0.5, "no data", ha="center", va="center", color="grey", transform=axes.transAxes
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for name, one in series:
        times: Any = [datetime.fromtimestamp(at, UTC) for at, _ in one.points]
        axes.plot(times, [value for _, value in one.points], label=name, linewidth=1)
    defaults = panel["fieldConfig"]["defaults"]
    top = max((v for _, one in series for _, v in one.points if math.isfinite(v)), default=0.0)
    for step in defaults["thresholds"]["steps"]:
        limit = step.get("value")
        if limit is not None and 0 < limit <= 1.5 * top:
            axes.axhline(limit, color=_COLOURS[step["color"]], linewidth=0.8, linestyle="--")
    unit = defaults.get("unit", "")
    axes.set_ylim(0, 1.1 * top or 1)
    axes.set_ylabel(_UNIT_TITLES[unit], fontsize=8)
    if unit in {"bytes", "Bps"}:
        axes.yaxis.set_major_formatter(EngFormatter())
    elif unit == "percentunit":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    dates: Any = matplotlib_dates  # which has no types
    axes.set_xlim(*(dates.date2num(datetime.fromtimestamp(at, UTC)) for at in (start, end)))
    locator = dates.AutoDateLocator(maxticks=5)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(*_legend(axes), fontsize=7, loc="upper left", framealpha=0.6)


def _legend(axes: Axes) -> tuple[Any, Any]:
    handles, labels = axes.get_legend_handles_labels()
    return handles[:_LEGEND_SERIES], labels[:_LEGEND_SERIES]


def _colour(panel: Mapping[str, Any], value: float) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [s["color"] for s in steps if s.get("value") is None or value >= s["value"]]
    return _COLOURS[reached[-1]]


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value:.2%}"
    return f"{value:,.4g} {_UNIT_TITLES[unit]}".strip()


def main() -> None:
    """Draw every dashboard."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.draw", description=__doc__)
    parser.add_argument("--prometheus", required=True, help="its address, http://HOST:PORT")
    parser.add_argument("--seconds", type=float, default=900, help="how much of the past")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for file in sorted((Path(__file__).parent / "dashboards").glob("*.json")):
        picture = args.out / f"{file.stem}.png"
        draw(json.loads(file.read_text()), args.prometheus, args.seconds, picture)
        echo(str(picture))


if __name__ == "__main__":
    main()
