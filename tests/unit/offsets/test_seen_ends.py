"""Ends of a partition as they were seen over time, against a list of all of them."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from shashin.offsets.seen_ends import SeenEnds

SAMPLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=30)
"""Seconds since the last sample, and records since then."""


def seen(samples: list[tuple[int, int]]) -> tuple[SeenEnds, list[tuple[float, int]]]:
    times = accumulate(seconds for seconds, _ in samples)
    everything = list(zip(times, accumulate(count for _, count in samples), strict=True))
    ends = SeenEnds()
    for at, end in everything:
        ends.note(end, at)
    return ends, [(float(at), end) for at, end in everything]


@given(SAMPLES, st.integers(0, 100))
def test_the_end_as_of_a_time_is_the_highest_one_seen_by_then(
    samples: list[tuple[int, int]], at: int
) -> None:
    ends, everything = seen(samples)
    expected = max((end for time, end in everything if time <= at), default=None)
    assert ends.as_of(at) == expected
    ends.forget_before(at)
    assert ends.as_of(at) == expected
    later = max((end for _, end in everything), default=None)
    assert ends.as_of(10**6) == later


@given(SAMPLES, st.integers(0, 40))
def test_an_offset_was_passed_when_the_end_was_first_seen_beyond_it(
    samples: list[tuple[int, int]], offset: int
) -> None:
    ends, everything = seen(samples)
    expected = min((time for time, end in everything if end > offset), default=None)
    assert ends.passed_at(offset) == expected
    ends.forget_through(offset)
    assert ends.passed_at(offset) == expected


def test_what_is_remembered_is_bounded_and_becomes_coarser() -> None:
    ends = SeenEnds()
    for at in range(100_000):
        ends.note(at + 1, at)
    assert len(ends._seen) <= 1024
    assert ends.as_of(10**6) == 100_000
    passed = ends.passed_at(50_000)
    assert passed is not None
    assert passed >= 50_000, "a record never seems older than it is"
    assert ends.passed_at(0) == 0
