"""Masked search over a graph without filter support, on every code path.

Its results for real index kinds are tested in tests/contract/kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.shards.kinds import masked_search
from shashin.shards.kinds.equal_vectors import GrowingNodes
from shashin.shards.kinds.masked_search import search_allowed
from shashin.shards.kinds.protocol import Groups, Mask, Vectors
from tests.support.brute_force import assert_same, brute_force
from tests.support.made_shards import vectors


class GraphOfRows:
    """A graph of the distinct rows that finds every node except unreachable ones."""

    def __init__(self, rows: Vectors, stranded: Mask | None = None) -> None:
        self.row_nodes = GrowingNodes()
        known: dict[bytes, int] = {}
        for row in rows:
            self.row_nodes.append(known.setdefault(row.tobytes(), len(known)))
        self.nodes = len(known)
        self._vectors = np.array(
            [np.frombuffer(content, np.float32) for content in known], dtype=np.float32
        ).reshape(-1, rows.shape[1])
        self._reachable = np.arange(self.nodes)
        if stranded is not None:
            self._reachable = np.flatnonzero(~stranded[: self.nodes])
        self.counts: list[int] = []

    def nearest(
        self, query: Vectors, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        self.counts.append(count)
        scores = self._vectors[self._reachable] @ query
        order = np.argsort(-scores, kind="stable")[:count]
        return self._reachable[order], scores[order]

    def node_vectors(self, nodes: npt.NDArray[np.int64]) -> Vectors:
        found: Vectors = self._vectors[nodes]
        return found


@contextmanager
def limits(*, exact_rows: int, max_count: int) -> Iterator[None]:
    """Lower the limits, so that little data reaches all code paths."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masked_search, "EXACT_ROWS", exact_rows)
        patch.setattr(masked_search, "_MAX_COUNT", max_count)
        yield


@st.composite
def shards(draw: st.DrawFn) -> tuple[Vectors, Groups, Mask | None]:
    """Return rows, the listing of each, and which are allowed: all, some, few or none."""
    count = draw(st.integers(0, 50))
    rows = vectors(count, draw(st.integers(0, 1000)))
    if count and draw(st.booleans()):
        rows = rows[np.random.default_rng(count).integers(0, max(1, count // 4), count)]
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
    st.integers(0, 5),
)
def test_the_result_equals_brute_force_on_every_path(
    shard: tuple[Vectors, Groups, Mask | None],
    k: int,
    seed: int,
    bounds: tuple[int, int],
    added_since: int,
) -> None:
    rows, group, allowed = shard
    queries = vectors(2, seed + 5000)
    listings = len(set(group.tolist()))
    graph = GraphOfRows(np.concatenate([rows, vectors(added_since, seed)]))
    with limits(exact_rows=bounds[0], max_count=bounds[1]):
        found = search_allowed(graph, queries, k, allowed, group, listings)
    assert len(found) == 2
    for query, neighbours in zip(queries, found, strict=True):
        assert_same(neighbours, brute_force(rows, query, k, allowed, group))


@settings(deadline=None, max_examples=40)
@given(shards(), st.integers(1, 60), st.integers(0, 1000), st.sampled_from([0.2, 0.8, 1.0]))
def test_an_answer_is_not_short_when_the_graph_strands_rows(
    shard: tuple[Vectors, Groups, Mask | None], k: int, seed: int, share: float
) -> None:
    rows, group, allowed = shard
    (query,) = vectors(1, seed + 5000)
    stranded = np.random.default_rng(seed).random(len(rows)) < share
    graph = GraphOfRows(rows, stranded)
    listings = len(set(group.tolist()))
    (found,) = search_allowed(graph, query[None, :], k, allowed, group, listings)
    assert len(found.rows) == len(brute_force(rows, query, k, allowed, group))
    assert allowed is None or allowed[found.rows].all()


def test_the_graph_is_not_searched_if_few_of_many_rows_are_allowed() -> None:
    rows = vectors(60, 1)
    graph = GraphOfRows(rows)
    allowed = np.arange(60) % 10 == 0
    group = np.arange(60, dtype=np.uint32)
    with limits(exact_rows=10, max_count=4096):
        (found,) = search_allowed(graph, rows[:1], 3, allowed, group, 60)
    assert_same(found, brute_force(rows, rows[0], 3, allowed, group))
    assert graph.counts == []


def test_a_search_with_too_few_results_doubles_its_candidates_up_to_the_limit() -> None:
    rows = vectors(400, 1)
    query = vectors(1, 2)
    graph = GraphOfRows(rows)
    # The 150 nearest are hidden, so the initial candidates are useless.
    allowed = np.ones(400, dtype=np.bool_)
    allowed[np.argsort(-(rows @ query[0]))[:150]] = False
    group = np.arange(400, dtype=np.uint32)
    with limits(exact_rows=10, max_count=100):
        (found,) = search_allowed(graph, query, 5, allowed, group, 400)
    assert_same(found, brute_force(rows, query[0], 5, allowed, group))
    initial = graph.counts[0]
    assert graph.counts == [initial, 2 * initial, 4 * initial, 100]
