"""Recall against queries a second."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.search.curves import Point, frontier, per_second_at


def point(recall: float, per_second: float) -> Point:
    return Point(1.0, recall, per_second, 1.0, 1.0)


points = st.lists(
    st.builds(point, st.floats(0, 1), st.floats(1, 1e6, allow_nan=False, allow_infinity=False)),
    max_size=12,
)


def test_between_two_points_the_speed_is_interpolated_on_a_logarithmic_scale() -> None:
    found = per_second_at([point(0.9, 10_000), point(1.0, 100)], 0.95)
    assert found == pytest.approx(1_000)


def test_a_recall_that_no_point_reaches_has_no_speed() -> None:
    assert per_second_at([point(0.9, 10_000)], 0.97) is None
    assert per_second_at([], 0.97) is None


def test_a_point_that_another_one_beats_in_both_does_not_count() -> None:
    better = [point(0.9, 2_000), point(0.99, 1_000)]
    assert frontier([*better, point(0.95, 500)]) == better


@given(points)
def test_along_the_frontier_more_recall_costs_speed(found: list[Point]) -> None:
    best = frontier(found)
    assert best == sorted(best, key=lambda p: p.recall)
    assert [p.per_second for p in best] == sorted((p.per_second for p in best), reverse=True)
    for one in found:
        assert any(p.recall >= one.recall and p.per_second >= one.per_second for p in best)


@given(points, st.floats(0, 1))
def test_the_speed_at_a_recall_is_between_those_of_points(
    found: list[Point], wanted: float
) -> None:
    at = per_second_at(found, wanted)
    speeds = [p.per_second for p in found]
    if at is None:
        assert all(p.recall < wanted for p in found)
    else:
        assert min(speeds) <= at or math.isclose(at, min(speeds))
        assert at <= max(speeds) or math.isclose(at, max(speeds))
