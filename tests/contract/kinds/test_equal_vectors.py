"""Many rows with equal vectors, such as one photo in a thousand listings, with every index kind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.shards.kinds.masked_search import EXACT_ROWS
from shashin.shards.kinds.protocol import Groups, Mask, Vectors
from tests.support.brute_force import brute_force
from tests.support.kind_under_test import KindUnderTest
from tests.support.made_shards import DIMENSIONS, vectors


def few_vectors(count: int, distinct: int, seed: int) -> Vectors:
    """Return rows (count, 8) of unit length with few distinct vectors and few distinct scores.

    Half of each vector's components are 0 and the others 0.5 or -0.5, so scores are exact.
    """
    rng = np.random.default_rng(seed)
    made = np.zeros((distinct, DIMENSIONS), dtype=np.float32)
    for vector in made:
        vector[rng.choice(DIMENSIONS, 4, replace=False)] = rng.choice([-0.5, 0.5], 4)
    chosen: Vectors = made[rng.integers(0, distinct, count)]
    return chosen


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Vectors, Groups, Mask | None]:
    """Return rows of which many are equal, the group of each, and which are allowed."""
    count = draw(st.integers(1, 60))
    rows = few_vectors(count, draw(st.integers(1, 12)), draw(st.integers(0, 10_000)))
    group = draw(st.lists(st.integers(0, 40), min_size=count, max_size=count))
    share = draw(st.sampled_from([None, 0.9, 0.5, 0.1, 0.0]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    allowed = None if share is None else rng.random(count) < share
    return rows, np.array(group, dtype=np.uint32), allowed


@settings(deadline=None, max_examples=80)
@given(crowds(), st.integers(1, 60), st.integers(0, 1000), st.integers(0, 5))
def test_equal_rows_are_found_as_brute_force_does_in_the_order_of_rows(
    growing: KindUnderTest,
    made: tuple[Vectors, Groups, Mask | None],
    k: int,
    seed: int,
    added_since: int,
) -> None:
    rows, group, allowed = made
    queries = few_vectors(3, 3, seed)
    groups = len(set(group.tolist()))
    more = np.concatenate([rows, rows[:added_since]])
    expected = [brute_force(rows, query, k, allowed, group) for query in queries]
    grown = growing.grown(more)
    with growing.opened(more) as opened:
        for index in (grown, opened):
            assert len(index) == len(more)
            assert np.array_equal(index.vectors(np.arange(len(more))), more)
            found = index.search(queries, k, allowed=allowed, group=group, groups=groups)
            for neighbours, best in zip(found, expected, strict=True):
                assert list(zip(neighbours.rows, neighbours.scores, strict=True)) == best


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 60), st.integers(1, 20), st.sets(st.integers(0, 60), max_size=8))
def test_equal_rows_give_the_same_files_added_in_pieces_or_at_once(
    tested: KindUnderTest, count: int, distinct: int, cuts: set[int]
) -> None:
    rows = few_vectors(count, distinct, count)

    def files(parts: list[Vectors]) -> dict[str, bytes]:
        builder = tested.kind.builder(DIMENSIONS)
        for part in parts:
            builder.add(part)
        with tempfile.TemporaryDirectory() as folder:
            names = builder.write(Path(folder))
            return {name: (Path(folder) / name).read_bytes() for name in names}

    at_once = files([rows])
    assert files(np.split(rows, sorted(cuts))) == at_once
    assert files([rows[n : n + 1] for n in range(count)]) == at_once


COPIES = 3_000
OTHERS = 59


@pytest.fixture(scope="module", params=["others first", "copies first", "mixed"])
def order(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def crowd(order: str) -> tuple[Vectors, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return rows of which 3,000 are copies of one vector, and the numbers of the others."""
    rows = np.concatenate([vectors(OTHERS, 8), np.repeat(vectors(1, 9), COPIES, axis=0)])
    numbers = np.arange(len(rows))
    if order == "copies first":
        numbers = numbers[::-1]
    elif order == "mixed":
        numbers = np.random.default_rng(3).permutation(len(rows))
    return rows[numbers], np.flatnonzero(numbers < OTHERS)


def test_three_thousand_copies_hide_no_other_row(growing: KindUnderTest, order: str) -> None:
    rows, others = crowd(order)
    group = np.arange(len(rows), dtype=np.uint32)
    half = np.arange(len(rows)) % 3 != 0
    half[others] = True
    assert EXACT_ROWS < np.count_nonzero(half) < len(rows)
    with growing.opened(rows) as opened:
        for index in (growing.grown(rows), opened):
            for allowed in (None, half):
                found = index.search(
                    rows[others], 10, allowed=allowed, group=group, groups=len(rows)
                )
                assert [n.rows[0] for n in found] == others.tolist()
                for neighbours, query in zip(found, rows[others], strict=True):
                    expected = brute_force(rows, query, 10, allowed, group)
                    assert neighbours.scores == pytest.approx([s for _, s in expected], abs=1e-5)


def test_one_listing_with_three_thousand_copies_is_one_hit(
    growing: KindUnderTest, order: str
) -> None:
    rows, others = crowd(order)
    group = np.zeros(len(rows), dtype=np.uint32)
    group[others] = np.arange(1, OTHERS + 1)
    copy = np.setdiff1d(np.arange(len(rows)), others)
    with growing.opened(rows) as index:
        (found,) = index.search(rows[copy[:1]], 60, allowed=None, group=group, groups=60)
        assert found.rows[0] == copy[0]
        assert sorted(found.rows[1:]) == others.tolist()
        hidden = np.ones(len(rows), dtype=np.bool_)
        hidden[copy[:-1]] = False
        (found,) = index.search(rows[copy[:1]], 60, allowed=hidden, group=group, groups=60)
        assert found.rows[0] == copy[-1]
