"""When searches that share a call are sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.sharing import (
    CALLS_AT_ONCE,
    WINDOW_SECONDS,
    Waiting,
    due_at,
    shares,
    still_arriving,
)
from shashin.codecs.limits import MAX_QUERIES, SHARED_QUERIES

seconds = st.floats(0, 1e6, allow_nan=False)
waiting = st.builds(
    Waiting, queries=st.integers(1, 2 * SHARED_QUERIES), joined=st.integers(0, 3), since=seconds
)


@given(waiting, st.integers(0, CALLS_AT_ONCE - 1))
def test_a_search_that_finds_few_calls_under_way_waits_for_nobody(
    searches: Waiting, calls: int
) -> None:
    assert due_at(searches, calls=calls) == searches.since


@given(waiting, st.integers(CALLS_AT_ONCE, 100))
def test_a_search_waits_for_calls_no_longer_than_the_window(searches: Waiting, calls: int) -> None:
    expected = searches.since + (WINDOW_SECONDS if searches.queries < SHARED_QUERIES else 0.0)
    assert due_at(searches, calls=calls) == expected


@given(st.integers(0, 100), seconds)
def test_what_fills_a_call_is_sent_at_once(calls: int, since: float) -> None:
    full = Waiting(SHARED_QUERIES, joined=1, since=since)
    assert not still_arriving(full)
    assert due_at(full, calls=calls) == since


def test_nothing_is_sent_while_each_turn_of_the_loop_brings_another_search() -> None:
    assert still_arriving(Waiting(2, joined=1, since=0.0))
    assert not still_arriving(Waiting(2, joined=0, since=0.0))


def test_searches_of_many_vectors_have_calls_of_their_own() -> None:
    assert [shares(queries) for queries in (1, SHARED_QUERIES - 1)] == [True, True]
    assert not any(shares(queries) for queries in range(SHARED_QUERIES, MAX_QUERIES + 1))
