"""Recall against queries a second. What is computed from measurements is pure."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from bench.figures import percentile
from bench.search.data import K, Numbers, Vectors, recall

RUNS = 3

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Point:
    """What one setting gives."""

    setting: float
    recall: float
    per_second: float
    """Queries a second, the median of the runs."""
    p50: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""


@dataclass(frozen=True)
class Curve:
    """The points of one index over one data set."""

    name: str
    data: str
    knob: str
    build_seconds: float
    points: list[Point]

    def document(self) -> dict[str, Any]:
        """Return this for JSON output."""
        return asdict(self)


def measured_point(
    setting: float,
    search: Callable[[Vectors], Answer],
    queries: Vectors,
    nearest: Numbers,
    *,
    rows_of: Callable[[Answer], Numbers],
    runs: int = RUNS,
) -> Point:
    """Search every query by itself, several times in one thread, and compare with the nearest rows.

    ``rows_of`` returns the rows of an answer; its time does not count.
    """
    found = np.full((len(queries), K), -1, np.int64)
    took: list[list[float]] = []
    for _ in range(runs):
        of_run = []
        for number, query in enumerate(queries):
            started = time.perf_counter()
            answer = search(query)
            of_run.append(time.perf_counter() - started)
            rows = rows_of(answer)
            found[number, : len(rows)] = rows
        took.append(of_run)
    return Point(
        setting,
        recall(found, nearest),
        statistics.median(len(of_run) / sum(of_run) for of_run in took),
        1e3 * statistics.median(percentile(of_run, 0.5) for of_run in took),
        1e3 * statistics.median(percentile(of_run, 0.99) for of_run in took),
    )


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats in both, by ascending recall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.recall, -p.per_second)):
        if not best or point.per_second > best[-1].per_second:
            best.append(point)
    return best[::-1]


def per_second_at(points: Sequence[Point], wanted: float) -> float | None:
    """Return the queries a second at a recall, between two points on a logarithmic scale.

    None if no point reaches it. Where every point is beyond it, the fastest counts: it is a lower bound.
    """
    best = frontier(points)
    if not best or best[-1].recall < wanted:
        return None
    if best[0].recall >= wanted:
        return best[0].per_second
    for low, high in pairwise(best):
        if low.recall < wanted <= high.recall:
            share = (wanted - low.recall) / (high.recall - low.recall)
            logs = math.log(low.per_second), math.log(high.per_second)
            return math.exp(logs[0] + share * (logs[1] - logs[0]))
    raise AssertionError("a recall is between two of the points")
