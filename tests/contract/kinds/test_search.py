"""Searches of every index kind, against brute force."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.shards.kinds.masked_search import EXACT_ROWS
from shashin.shards.kinds.protocol import Groups, Mask, SearchableIndex, Vectors
from tests.support.brute_force import assert_same, brute_force
from tests.support.kind_under_test import KindUnderTest
from tests.support.made_shards import DIMENSIONS, vectors

RECALL = 0.95
"""Minimum recall of every kind with a few thousand rows."""


def all_apart(count: int) -> Groups:
    return np.arange(count, dtype=np.uint32)


@st.composite
def masked_rows(draw: st.DrawFn) -> tuple[Vectors, Groups, Mask | None]:
    """Return rows, the group of each, and which are allowed, from none to all."""
    count = draw(st.integers(0, 50))
    group = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    share = draw(st.sampled_from([None, 1.0, 0.9, 0.5, 0.1, 0.02, 0.0]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    allowed = None if share is None else rng.random(count) < share
    return vectors(count, draw(st.integers(0, 1000))), np.array(group, dtype=np.uint32), allowed


@settings(deadline=None, max_examples=60)
@given(masked_rows(), st.integers(1, 30), st.integers(0, 1000))
def test_a_search_of_few_rows_equals_brute_force_for_every_mask(
    tested: KindUnderTest, made: tuple[Vectors, Groups, Mask | None], k: int, seed: int
) -> None:
    rows, group, allowed = made
    queries = vectors(2, seed + 5000)
    groups = len(set(group.tolist()))
    with tested.opened(rows) as index:
        found = index.search(queries, k, allowed=allowed, group=group, groups=groups)
    assert len(found) == len(queries)
    for query, neighbours in zip(queries, found, strict=True):
        assert_same(neighbours, brute_force(rows, query, k, allowed, group))


def test_a_group_of_several_rows_is_found_once_at_its_nearest(tested: KindUnderTest) -> None:
    query = vectors(1, 1)
    rows = np.concatenate([vectors(1, 2), query, vectors(1, 3), -query])
    group = np.array([0, 0, 1, 0], dtype=np.uint32)
    with tested.opened(rows) as index:
        (found,) = index.search(query, 10, allowed=None, group=group, groups=2)
        assert found.rows.tolist() == [1, 2]
        nearest_hidden = np.array([True, False, True, True])
        (found,) = index.search(query, 10, allowed=nearest_hidden, group=group, groups=2)
        assert found.rows[found.rows != 2].tolist() == [0]


def test_asking_for_more_than_there_is_gives_all_rows(tested: KindUnderTest) -> None:
    with tested.opened(vectors(7, 1)) as index:
        (found,) = index.search(vectors(1, 2), 1000, allowed=None, group=all_apart(7), groups=7)
    assert sorted(found.rows.tolist()) == list(range(7))


def test_rows_beyond_the_groups_are_not_searched(tested: KindUnderTest) -> None:
    rows = vectors(20, 1)
    with tested.opened(rows) as index:
        for allowed in (None, np.ones(12, dtype=np.bool_), np.arange(12) % 2 == 0):
            (found,) = index.search(
                rows[15:16], 20, allowed=allowed, group=all_apart(12), groups=12
            )
            assert_same(found, brute_force(rows, rows[15], 20, allowed, all_apart(12)))


def test_an_index_without_vectors_finds_nothing(tested: KindUnderTest) -> None:
    with tested.opened(vectors(0, 1)) as index:
        assert len(index) == 0
        found = index.search(vectors(3, 1), 5, allowed=None, group=all_apart(0), groups=0)
        assert [len(neighbours.rows) for neighbours in found] == [0, 0, 0]
        assert index.vectors(np.zeros(0, dtype=np.int64)).shape == (0, DIMENSIONS)


def test_without_allowed_rows_every_result_is_empty(tested: KindUnderTest) -> None:
    nothing = np.zeros(9, dtype=np.bool_)
    with tested.opened(vectors(9, 1)) as index:
        found = index.search(vectors(3, 2), 5, allowed=nothing, group=all_apart(9), groups=9)
    assert [(len(n.rows), len(n.scores)) for n in found] == [(0, 0)] * 3


@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 40), keys=st.lists(st.integers(0, 1000), max_size=10))
def test_vectors_are_returned_by_key_in_the_requested_order(
    tested: KindUnderTest, count: int, keys: list[int]
) -> None:
    rows = vectors(count, count)
    wanted = np.array([key % count for key in keys], dtype=np.int64)
    with tested.opened(rows) as index:
        found = index.vectors(wanted)
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert found == pytest.approx(rows[wanted], abs=tested.precision.vectors)


class Many:
    """More rows than are searched by brute force, two per group."""

    rows = vectors(EXACT_ROWS + 600, 77)
    group = (np.arange(len(rows)) // 2).astype(np.uint32)
    groups = len(rows) // 2


@pytest.fixture(scope="module")
def many(tested: KindUnderTest) -> SearchableIndex:
    with tested.opened(Many.rows) as index:
        return index  # The mapping stays valid after its file is deleted.


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_few_allowed_rows_out_of_many_are_found_exactly(
    many: SearchableIndex, share: float
) -> None:
    allowed = np.random.default_rng(1).random(len(Many.rows)) >= share
    assert 0 < np.count_nonzero(allowed) <= EXACT_ROWS
    queries = vectors(3, 4)
    found = many.search(queries, 10, allowed=allowed, group=Many.group, groups=Many.groups)
    for query, neighbours in zip(queries, found, strict=True):
        assert_same(neighbours, brute_force(Many.rows, query, 10, allowed, Many.group))


@pytest.mark.parametrize("k", [1, 20, 300])
@pytest.mark.parametrize("hidden_share", [None, 0.0, 0.1, 0.2])
def test_with_many_hidden_rows_results_are_complete_and_contain_none_of_them(
    many: SearchableIndex, hidden_share: float | None, k: int
) -> None:
    queries = vectors(10, 5)
    allowed: npt.NDArray[np.bool_] | None = None
    if hidden_share is not None:
        # Hide the nearest rows, so that the first candidates of a search are useless.
        nearness = (Many.rows @ queries.T).max(axis=1)
        allowed = nearness <= np.quantile(nearness, 1 - hidden_share)
        assert np.count_nonzero(allowed) > EXACT_ROWS
    right = 0
    answers = many.search(queries, k, allowed=allowed, group=Many.group, groups=Many.groups)
    for query, found in zip(queries, answers, strict=True):
        assert len(found.rows) == len(set(Many.group[found.rows].tolist())) == k
        assert allowed is None or allowed[found.rows].all()
        assert (np.diff(found.scores) <= 0).all()
        assert found.scores == pytest.approx(Many.rows[found.rows] @ query, abs=1e-5)
        expected = {row for row, _ in brute_force(Many.rows, query, k, allowed, Many.group)}
        right += len(expected & set(found.rows.tolist()))
    assert right >= RECALL * k * len(queries)


@pytest.mark.parametrize("visible", [None, 0.5])
@pytest.mark.parametrize("k", [400, 1_000])
def test_one_vector_that_was_added_a_thousand_times_is_found_k_times(
    tested: KindUnderTest, k: int, visible: float | None
) -> None:
    rows = np.repeat(vectors(1, 6), 1_000, axis=0)
    allowed = None if visible is None else np.random.default_rng(7).random(1_000) < visible
    with tested.opened(rows) as index:
        (found,) = index.search(rows[:1], k, allowed=allowed, group=all_apart(1_000), groups=1_000)
    assert len(found.rows) == min(k, 1_000 if allowed is None else np.count_nonzero(allowed))
    assert len(set(found.rows.tolist())) == len(found.rows)
    assert allowed is None or allowed[found.rows].all()
