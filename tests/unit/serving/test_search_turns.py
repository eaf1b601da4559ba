"""Which searches have their turn, over any order in which they come and are given up."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from shashin.codecs.limits import MAX_QUERIES, SHARED_QUERIES
from shashin.serving.search_turns import Part, SearchTurns, Turnable

searches = st.builds(
    Turnable,
    agrees_in=st.sampled_from(["a", "b", "c"]),
    queries=st.one_of(st.integers(1, 3), st.integers(1, MAX_QUERIES)),
    alone=st.booleans(),
    given_up=st.sampled_from([False, False, False, True]),
)
events = st.lists(st.one_of(searches, st.none()))
"""A search comes, or a thread is free."""


def is_large(search: Turnable) -> bool:
    return search.queries > SHARED_QUERIES


def turns_of(happening: list[Turnable | None]) -> list[list[Part[Turnable]]]:
    """Return all turns, until nothing waits any more."""
    waiting: SearchTurns[Turnable] = SearchTurns()
    turns = []
    for event in happening:
        if event is not None:
            waiting.add(event)
        elif parts := waiting.take():
            turns.append(parts)
    while parts := waiting.take():
        turns.append(parts)
    return turns


@given(events)
def test_each_vector_of_a_search_has_its_turn_exactly_once(
    happening: list[Turnable | None],
) -> None:
    taken: defaultdict[Turnable, list[int]] = defaultdict(list)
    for parts in turns_of(happening):
        for part in parts:
            taken[part.search].extend(range(part.first, part.end))
    expected = {
        one: list(range(one.queries)) for one in happening if one is not None and not one.given_up
    }
    assert taken == expected


@given(events)
def test_a_turn_is_bounded_and_only_of_searches_that_agree(
    happening: list[Turnable | None],
) -> None:
    for parts in turns_of(happening):
        assert 1 <= sum(part.end - part.first for part in parts) <= SHARED_QUERIES
        if len(parts) > 1:
            assert len({part.search.agrees_in for part in parts}) == 1
            assert not any(part.search.alone or is_large(part.search) for part in parts)


@given(st.lists(searches, max_size=12), st.lists(searches, max_size=12))
def test_while_both_wait_small_searches_have_every_other_turn(
    first: list[Turnable], second: list[Turnable]
) -> None:
    waiting: SearchTurns[Turnable] = SearchTurns()
    for search in first + second:
        waiting.add(search)
    left = [one for one in first + second if not one.given_up]
    before: bool | None = None
    while parts := waiting.take():
        now = is_large(parts[0].search)
        if before is not None and now == before:
            assert not [o for o in left if is_large(o) != now], "others waited twice in a row"
        left = [one for one in left if one.taken < one.queries]
        before = now


@given(st.integers(2, 20))
def test_no_kind_of_search_is_overtaken_by_the_same_one_twice(count: int) -> None:
    waiting: SearchTurns[Turnable] = SearchTurns()
    for _ in range(count):
        for kind in "abc":
            waiting.add(Turnable(kind, SHARED_QUERIES))
    kinds = [parts[0].search.agrees_in for parts in iter(waiting.take, [])]
    assert kinds == list("abc") * count


def test_large_searches_take_turns_with_each_other() -> None:
    waiting: SearchTurns[Turnable] = SearchTurns()
    first, second = Turnable("a", 3 * SHARED_QUERIES), Turnable("a", 2 * SHARED_QUERIES)
    waiting.add(first)
    waiting.add(second)
    order = [parts[0].search for parts in iter(waiting.take, [])]
    assert order == [first, second, first, second, first]
