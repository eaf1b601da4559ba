from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.client.listing_events import LISTED, SOLD, UPDATED
from shashin.workload.plan import StreamPlan, plan_stream, spread

photo_counts = st.lists(st.integers(1, 20), min_size=1, max_size=80)
shares = st.floats(0, 0.5)


def plan(counts: list[int], sold: float, updated: float, seed: int) -> StreamPlan:
    return plan_stream(
        counts, photos_per_second=60, sold_share=sold, updated_share=updated, seed=seed
    )


@given(photo_counts, shares, shares, st.integers(0, 1000))
def test_a_listings_versions_grow_with_time(
    counts: list[int], sold: float, updated: float, seed: int
) -> None:
    stream = plan(counts, sold, updated, seed)
    versions = defaultdict(list)
    for event in stream.events:
        versions[event.listing].append(event.version)
    assert [e.at for e in stream.events] == sorted(e.at for e in stream.events)
    assert set(versions) == set(range(len(counts)))
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())


@given(photo_counts, shares, shares, st.integers(0, 1000))
def test_no_listing_is_both_sold_and_updated(
    counts: list[int], sold: float, updated: float, seed: int
) -> None:
    stream = plan(counts, sold, updated, seed)
    kinds = Counter(event.kind for event in stream.events)
    assert not stream.sold & stream.updated
    assert kinds[LISTED] == len(counts)
    assert kinds[SOLD] == len(stream.sold) == round(len(counts) * sold)
    assert kinds[UPDATED] == len(stream.updated)
    assert stream.with_photos == kinds[LISTED] + kinds[UPDATED]


def test_photos_come_at_a_steady_rate() -> None:
    stream = plan([3] * 100, 0, 0, 1)
    assert stream.events[40].at == pytest.approx(2.0)
    assert stream.seconds == pytest.approx(99 * 3 / 60)


def test_the_same_seed_gives_the_same_stream() -> None:
    assert plan([3] * 50, 0.1, 0.1, 7) == plan([3] * 50, 0.1, 0.1, 7)
    assert plan([3] * 50, 0.1, 0.1, 7) != plan([3] * 50, 0.1, 0.1, 8)


@given(st.integers(0, 300), st.integers(1, 300))
def test_spread_picks_distinct_candidates_over_the_whole_range(count: int, wanted: int) -> None:
    candidates = list(range(0, 2 * count, 2))
    chosen = spread(candidates, wanted)
    assert len(chosen) == len(set(chosen)) == min(count, wanted)
    assert set(chosen) <= set(candidates)
