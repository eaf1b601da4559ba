"""When a search is done on the event loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shashin.serving.quick_searches import LONGER, LONGEST_SECONDS, RECENT, QuickSearches

seconds = st.floats(0, 2 * LONGEST_SECONDS)


@given(st.lists(seconds, max_size=3 * RECENT))
def test_a_search_is_expected_to_be_short_once_most_of_many_were(took: list[float]) -> None:
    quick, shards = QuickSearches(), object()
    for one in took:
        quick.observe(shards, one)
    recent = took[-RECENT:]
    longer = sum(one > LONGEST_SECONDS for one in recent)
    short = len(recent) == RECENT and longer <= LONGER
    assert quick.expected(shards) == short


def test_nothing_is_known_of_shards_that_have_just_been_swapped_in() -> None:
    quick, before, after = QuickSearches(), object(), object()
    for _ in range(RECENT):
        quick.observe(before, 0.0)
    assert quick.expected(before)
    assert not quick.expected(after)
    quick.observe(after, 0.0)
    assert not quick.expected(after)
