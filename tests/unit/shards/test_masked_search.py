"""Masked search against brute force: hidden rows never make an answer short or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.shards.kinds import masked_search
from shashin.shards.kinds.masked_search import search_allowed
from shashin.shards.kinds.protocol import Neighbours, Vectors
from shashin.shards.kinds.usearch_hnsw import UsearchHnsw, UsearchIndex
from tests.support.made_shards import DIMENSIONS, vectors

Mask = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.uint32]


def index_of(rows: Vectors) -> UsearchIndex:
    index = UsearchHnsw().growing(DIMENSIONS)
    if len(rows):
        index.add(rows)
    return index


def brute_force(
    rows: Vectors, query: Vectors, k: int, allowed: Mask | None, group: Groups
) -> list[tuple[int, float]]:
    """Return row and score of each of the k nearest listings, by comparing with every row."""
    best: dict[int, tuple[float, int]] = {}
    for number, score in enumerate((rows @ query).tolist()):
        if allowed is None or allowed[number]:
            listing = int(group[number])
            best[listing] = max(best.get(listing, (-np.inf, 0)), (score, -number))
    nearest = sorted(best.values(), reverse=True)[:k]
    return [(-number, score) for score, number in nearest]


def pairs(found: Neighbours) -> list[tuple[int, float]]:
    return [(int(n), float(s)) for n, s in zip(found.rows, found.scores, strict=True)]


def assert_same(found: Neighbours, expected: list[tuple[int, float]]) -> None:
    assert [row for row, _ in pairs(found)] == [row for row, _ in expected]
    assert found.scores.tolist() == pytest.approx([score for _, score in expected], abs=1e-5)


@contextmanager
def limits(*, exact_rows: int, max_count: int) -> Iterator[None]:
    """Have little data reach the paths that only much data reaches otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masked_search, "EXACT_ROWS", exact_rows)
        patch.setattr(masked_search, "_MAX_COUNT", max_count)
        yield


@st.composite
def shards(draw: st.DrawFn) -> tuple[Vectors, Groups, Mask | None]:
    """Return rows, the listing of each, and which are allowed: all, some, few or none."""
    count = draw(st.integers(0, 50))
    rows = vectors(count, draw(st.integers(0, 1000)))
    group = np.array(
        draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)), dtype=np.uint32
    )
    kind = draw(st.sampled_from(["all", "some", "few", "none"]))
    if kind == "all":
        return rows, group, None
    share = {"some": 0.6, "few": 0.1, "none": 0.0}[kind]
    allowed = np.random.default_rng(draw(st.integers(0, 1000))).random(count) < share
    return rows, group, allowed


@settings(deadline=None, max_examples=80)
@given(
    shards(),
    st.integers(1, 30),
    st.integers(0, 1000),
    st.sampled_from([(0, 4096), (10, 4096), (0, 4), (2000, 16)]),
)
def test_the_answer_is_that_of_brute_force_on_every_path(
    shard: tuple[Vectors, Groups, Mask | None], k: int, seed: int, bounds: tuple[int, int]
) -> None:
    rows, group, allowed = shard
    queries = vectors(2, seed + 5000)
    listings = len(set(group.tolist()))
    with limits(exact_rows=bounds[0], max_count=bounds[1]):
        found = search_allowed(index_of(rows), queries, k, allowed, group, listings)
    assert len(found) == 2
    for query, neighbours in zip(queries, found, strict=True):
        assert_same(neighbours, brute_force(rows, query, k, allowed, group))


def test_a_listing_with_several_photos_is_found_once_at_its_nearest() -> None:
    query = vectors(1, 1)[0]
    rows = np.stack([vectors(1, 2)[0], query, vectors(1, 3)[0], -query])
    group = np.array([0, 0, 1, 0], dtype=np.uint32)
    (found,) = search_allowed(index_of(rows), query[None, :], 10, None, group, 2)
    assert found.rows.tolist() == [1, 2]


def test_more_hits_than_rows_gives_all_rows() -> None:
    rows = vectors(7, 1)
    group = np.arange(7, dtype=np.uint32)
    (found,) = search_allowed(index_of(rows), vectors(1, 2), 1000, None, group, 7)
    assert sorted(found.rows.tolist()) == list(range(7))


def test_rows_that_came_after_the_mask_was_made_are_not_found() -> None:
    rows = vectors(20, 1)
    allowed = np.ones(12, dtype=np.bool_)
    group = np.arange(12, dtype=np.uint32)
    for mask in (allowed, None):
        (found,) = search_allowed(index_of(rows), rows[15:16], 20, mask, group, 12)
        assert_same(found, brute_force(rows[:12], rows[15], 20, None, group))


@pytest.fixture(scope="module")
def many() -> tuple[Vectors, UsearchIndex]:
    """More rows than are compared one by one."""
    rows = vectors(2_600, 77)
    assert len(rows) > masked_search.EXACT_ROWS
    return rows, index_of(rows)


def test_a_few_allowed_rows_of_many_are_found_exactly(many: tuple[Vectors, UsearchIndex]) -> None:
    rows, index = many
    allowed = np.zeros(len(rows), dtype=np.bool_)
    allowed[::100] = True
    group = (np.arange(len(rows)) // 3).astype(np.uint32)
    queries = vectors(3, 4)
    found = search_allowed(index, queries, 10, allowed, group, 900)
    for query, neighbours in zip(queries, found, strict=True):
        assert_same(neighbours, brute_force(rows, query, 10, allowed, group))


@pytest.mark.parametrize("hidden_share", [0.0, 0.1, 0.2])
def test_many_hidden_rows_make_no_answer_short_and_none_of_them_is_found(
    many: tuple[Vectors, UsearchIndex], hidden_share: float
) -> None:
    rows, index = many
    group = (np.arange(len(rows)) // 2).astype(np.uint32)
    queries = vectors(10, 5)
    # The nearest are hidden first of all: what a search finds at first is useless.
    nearness = (rows @ queries.T).max(axis=1)
    allowed = nearness <= np.quantile(nearness, 1 - hidden_share)
    assert np.count_nonzero(allowed) > masked_search.EXACT_ROWS
    right = 0
    for query, found in zip(
        queries, search_allowed(index, queries, 20, allowed, group, 1_300), strict=True
    ):
        assert len(found.rows) == 20
        assert allowed[found.rows].all()
        assert len(set(group[found.rows].tolist())) == 20
        expected = {row for row, _ in brute_force(rows, query, 20, allowed, group)}
        right += len(expected & set(found.rows.tolist()))
    assert right >= 0.95 * 20 * len(queries)


@pytest.mark.parametrize("visible", [None, 0.5])
@pytest.mark.parametrize("k", [400, 1_000])
def test_one_photo_that_is_posted_a_thousand_times_is_found_as_often_as_asked_for(
    k: int, visible: float | None
) -> None:
    # HNSW strands most of many equal vectors: no search of the graph ever meets them.
    rows = np.repeat(vectors(1, 6), 1_000, axis=0)
    group = np.arange(1_000, dtype=np.uint32)
    index = index_of(rows)
    assert len(index.nearest(rows[0], 1_000)[0]) < 500, "nothing is stranded: test nothing"
    allowed = None if visible is None else np.random.default_rng(7).random(1_000) < visible
    (found,) = search_allowed(index, rows[:1], k, allowed, group, 1_000)
    assert len(found.rows) == min(k, 1_000 if allowed is None else np.count_nonzero(allowed))
    assert allowed is None or allowed[found.rows].all()
