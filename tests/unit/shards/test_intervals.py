"""Unions of intervals against sets of numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shashin.shards.intervals import MAX, MIN, Intervals

EDGES = [MIN - 1, MIN, MIN + 1, -3, -2, -1, 0, 1, 2, 3, 4, MAX - 1, MAX, MAX + 1]
BOUNDS = st.lists(st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)), max_size=8)
NUMBERS = [edge for edge in EDGES if MIN <= edge <= MAX]


@given(BOUNDS)
def test_a_number_is_in_the_union_if_and_only_if_it_is_between_some_bounds(
    bounds: list[tuple[int, int]],
) -> None:
    found = Intervals.union(bounds).contain(np.array(NUMBERS, dtype=np.int64))
    assert found.tolist() == [any(low <= n <= high for low, high in bounds) for n in NUMBERS]


@given(BOUNDS)
def test_intervals_of_a_union_neither_overlap_nor_touch(bounds: list[tuple[int, int]]) -> None:
    union = Intervals.union(bounds)
    lows, highs = union.lows.tolist(), union.highs.tolist()
    assert all(low <= high for low, high in zip(lows, highs, strict=True))
    assert all(low > high + 1 for high, low in zip(highs, lows[1:], strict=False))
