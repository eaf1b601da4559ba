"""Histograms: close to the exact percentiles, whatever the durations are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.workload.load.histogram import MAX_SECONDS, MIN_SECONDS, Histogram

SECONDS = st.floats(MIN_SECONDS, MAX_SECONDS)
DURATIONS = st.lists(SECONDS, min_size=1, max_size=300)
SHARES = st.floats(0, 1)


def filled(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@given(DURATIONS, SHARES)
def test_a_percentile_differs_from_the_exact_one_by_one_percent_at_most(
    durations: list[float], share: float
) -> None:
    exact = sorted(durations)[max(1, math.ceil(share * len(durations))) - 1]
    assert filled(durations).percentile(share) == pytest.approx(exact, rel=0.01)


@given(DURATIONS, DURATIONS, SHARES)
def test_merged_histograms_are_that_of_all_durations(
    some: list[float], others: list[float], share: float
) -> None:
    merged, together = filled(some), filled([*some, *others])
    merged.merge(filled(others))
    assert merged.percentile(share) == together.percentile(share)
    assert (merged.count, merged.max) == (together.count, together.max)


def test_its_memory_is_bounded_over_the_whole_range() -> None:
    span = math.log(MAX_SECONDS / MIN_SECONDS)
    every = filled([MIN_SECONDS * math.exp(span * n / 50_000) for n in range(50_001)])
    assert every.buckets <= 2_530
    assert filled([0.0, -1.0, 1e-12]).buckets == 1


def test_an_empty_one_has_no_percentile() -> None:
    assert Histogram().percentile(0.5) is None
