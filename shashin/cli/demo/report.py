"""The demo's measurements, as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from shashin.terminal.console import echo, echo_table, megabytes, seconds


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of the values do not exceed."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass
class Figures:
    """What ``--json`` writes; times in seconds, memory in bytes, None for what was not measured."""

    listings: int
    photos: int
    events: int
    stream_s: float
    events_per_s: float
    photos_per_s: float
    freshness_p50_s: float | None
    freshness_p99_s: float | None
    freshness_samples: int
    gone_p50_s: float | None
    gone_p99_s: float | None
    gone_samples: int
    recall_at_1: float | None
    recall_at_10: float | None
    queries: int
    query_p50_s: float | None
    query_p99_s: float | None
    sold: int
    updated: int
    ghosts: int
    coverage_complete: bool
    shards_sealed: int
    shards_served: int
    searchable: int
    hidden: int
    dead_lettered: int
    photos_dead_lettered: int
    wall_s: float = 0.0
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def figures_document(figures: Figures) -> dict[str, Any]:
    """Return the measurements for JSON output, with floats rounded to 4 decimals."""
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(figures).items()
    }


def print_figures(figures: Figures, balance_line: str, query_kind: str) -> None:
    """Print the measurements as a table."""
    rows: list[tuple[str, object]] = [
        ("listings", f"{figures.listings:,} with {figures.photos:,} photos"),
        (
            "stream",
            (
                f"{figures.events:,} events in {figures.stream_s:.0f} s: "
                f"{figures.events_per_s:.1f} events/s, {figures.photos_per_s:.1f} photos/s"
            ),
        ),
        (
            "freshness",
            (
                f"p50 {seconds(figures.freshness_p50_s)}, p99 {seconds(figures.freshness_p99_s)} from "
                f"the event to the first search that finds it ({figures.freshness_samples} sampled)"
            ),
        ),
        (
            "removal",
            (
                f"p50 {seconds(figures.gone_p50_s)}, p99 {seconds(figures.gone_p99_s)} from the sale to "
                f"the first search without it ({figures.gone_samples} sampled)"
            ),
        ),
        (
            "recall",
            (
                f"@1 {_share(figures.recall_at_1)}, @10 {_share(figures.recall_at_10)} with "
                f"{figures.queries} {query_kind}"
            ),
        ),
        (
            "search by photo",
            f"p50 {seconds(figures.query_p50_s)}, p99 {seconds(figures.query_p99_s)}",
        ),
        ("ghosts", f"{figures.ghosts} of {figures.sold} sold listings can still be found"),
        ("coverage", "complete" if figures.coverage_complete else "NOT complete"),
        ("shards", f"{figures.shards_sealed} sealed, {figures.shards_served} served"),
        ("balance", balance_line),
        ("peak memory", _memory(figures.peak_memory_bytes)),
        ("wall time", f"{figures.wall_s:.0f} s"),
    ]
    echo()
    echo_table(["", "measurements"], rows)
    for problem in figures.problems:
        echo(f"problem: {problem}", style="bold red")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _memory(peaks: Mapping[str, int]) -> tuple[str, ...]:
    lines = [f"{megabytes(size):>10}  {name}" for name, size in sorted(peaks.items())]
    return (*lines, f"{megabytes(sum(peaks.values())):>10}  total")
