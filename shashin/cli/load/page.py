"""The report of a load as one HTML page: tables and plots, without anything from elsewhere. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --text: #1d2129; --dim: #69717f; --line: #dfe3ea; --card: #fff;
        --back: #f5f6f9; --c0: #2a6fdb; --c1: #d9730d; --c2: #6b7280; --c3: #c0392b; --c4: #8e44ad;
        --c5: #16876c; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8ec; --dim: #98a0ae; --line: #343a46; --card: #1c2027; --back: #13161b;
          --c0: #6ea8ff; --c1: #f0a04b; --c2: #a3abb8; --c3: #ff7b6b; --c4: #c792ea; --c5: #4cc9a4; }
}
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
       max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.note { color: var(--dim); margin: .3rem 0 1.2rem; } .bad { color: var(--c3); font-weight: 600; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
        padding: .9rem 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; color: var(--dim); font-weight: 500; } td { text-align: right; }
th, td { padding: .25rem .6rem; } th:first-child, td:first-child, th:last-child, td:last-child
{ text-align: left; } tr + tr td { border-top: 1px solid var(--line); }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; }
.legend { color: var(--dim); font-size: .85rem; display: flex; gap: 1rem; flex-wrap: wrap; }
.legend i { display: inline-block; width: 1rem; height: 3px; border-radius: 2px;
            vertical-align: middle; margin-right: .35rem; }
svg { width: 100%; height: auto; display: block; margin-top: .3rem; }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
svg .grid { stroke: var(--line); } svg polyline { fill: none; stroke-width: 1.8;
            stroke-linejoin: round; }
"""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 480, 210, 52, 24, 8, 10
_TICKS = 4
_DASHES = ' stroke-dasharray="5 4"'


@dataclass(frozen=True)
class _Line:
    """One line of a plot; a point without a value interrupts it."""

    name: str
    colour: int
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False


def report_page(document: dict[str, Any]) -> str:
    """Return the page of a report (``report_document``)."""
    options = ", ".join(
        f"{name} {'+'.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in document["options"].items()
        if value
    )
    generator = document["generator"]
    ended = " (interrupted)" if document["interrupted"] else ""
    rows = "".join(_row(name, kind) for name, kind in document["kinds"].items())
    kinds = "".join(
        f"<h2>{escape(name)}</h2><div class=plots>{_plots(kind)}</div>"
        for name, kind in document["kinds"].items()
    )
    kept = "note" if generator["kept_up"] else "bad"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Load {escape(document['run'])}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Load {escape(document['run'])}</h1>"
        f'<p class="note">{document["seconds"]:.1f} s{ended} · {escape(options)}</p>\n'
        f'<p class="{kept}">{escape(generator["note"])}</p>\n'
        '<div class="card"><table><tr><th></th><th>requests</th><th>asked</th><th>done</th>'
        "<th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>failed</th></tr>"
        f"{rows}</table></div>\n"
        '<p class="note">Latencies are those of successful requests, from when each was due.</p>\n'
        f"{kinds}\n</body></html>\n"
    )


def _row(name: str, kind: dict[str, Any]) -> str:
    failed = ", ".join(f"{n} {what}" for what, n in kind["outcomes"].items() if what != "ok")
    cells = [
        escape(name),
        f"{kind['requests']:,}",
        *(_rate(kind[rate]) for rate in ("asked_rate", "done_rate")),
        *(_time(kind[p]) for p in ("p50", "p90", "p99", "p99.9", "max")),
        escape(failed or "none"),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}/s"


def _time(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def _plots(kind: dict[str, Any]) -> str:
    windows = kind["windows"]

    def points(name: str) -> list[tuple[float, float | None]]:
        return [(w["at"] + w["seconds"] / 2, w[name]) for w in windows]

    def milliseconds(name: str) -> list[tuple[float, float | None]]:
        return [(at, None if value is None else value * 1000) for at, value in points(name)]

    failures = [what for what in kind["outcomes"] if what != "ok"]
    errors = [
        _Line(
            what,
            3 + number % 3,
            [
                (w["at"] + w["seconds"] / 2, w["outcomes"].get(what, 0) / w["seconds"])
                for w in windows
            ],
        )
        for number, what in enumerate(failures)
    ]
    rates = [_Line("done", 0, points("done_rate"))]
    if kind["asked_rate"] is not None:
        rates.insert(0, _Line("asked", 2, points("asked_rate"), dashed=True))
    return (
        _plot(
            "Latency, ms",
            [_Line("p50", 0, milliseconds("p50")), _Line("p99", 1, milliseconds("p99"))],
        )
        + _plot("Requests per second", rates)
        + _plot("Failures per second", errors)
    )


def _plot(title: str, lines: Sequence[_Line]) -> str:
    legend = "".join(
        f'<span><i style="background:var(--c{line.colour})"></i>{escape(line.name)}</span>'
        for line in lines
    )
    values = [value for line in lines for _, value in line.points if value is not None]
    if not values:
        what = "none" if not lines else "no values"
        return (
            f'<figure class="card"><figcaption>{escape(title)}</figcaption>'
            f'<div class="legend">{what}</div></figure>'
        )
    step = _nice_step(max(values) or 1.0)
    top = step * max(1, math.ceil(max(values) / step))
    end = max(at for line in lines for at, _ in line.points) or 1.0
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + at / end * plot_width

    def y(value: float) -> float:
        return _TOP + (1 - value / top) * plot_height

    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (round(step * n, 9) for n in range(round(top / step) + 1))
    )
    x_step = _nice_step(end)
    ticks = "".join(
        f'<text x="{x(at):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{at:g} s</text>'
        for at in (round(x_step * n, 9) for n in range(int(end / x_step) + 1))
    )
    drawn = "".join(
        f'<polyline points="{" ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)}" '
        f'style="stroke:var(--c{line.colour})"{_DASHES * line.dashed}/>'
        for line in lines
        for run in _runs(line.points)
    )
    return (
        f'<figure class="card"><figcaption>{escape(title)}</figcaption>'
        f'<div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{grid}{ticks}{drawn}</svg></figure>"
    )


def _nice_step(top: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that about four steps reach ``top``."""
    raw = top / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * by for by in (1, 2, 5, 10) if power * by >= raw * 0.999)


def _runs(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Return the parts of a line between points without a value."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((at, value))
    return [run for run in runs if run]
