"""Search with a mask over a graph that knows none: hidden or filtered rows never make an answer short.

For kinds whose library has no filter inside its search. A search over-fetches, drops what the
mask forbids, keeps each group's best row, and asks for twice as many until it has enough. When few
rows are allowed, it compares the query with every one of them instead, which is exact. It does so
as well when the graph has no more rows to give: HNSW strands rows among many equal vectors, such
as one photo that is posted a thousand times.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.exact_search import best_of_each, nearest_of, nothing
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors

EXACT_ROWS = 2_000
"""Up to this many allowed rows, comparing with each of them is faster than asking for more."""

_MAX_COUNT = 4_096
"""Candidates beyond which the graph search costs more than comparing with every allowed row."""


class Graph(Protocol):
    """A graph of vectors 0 .. n-1."""

    def __len__(self) -> int: ...

    def nearest(
        self, query: Vectors, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return up to ``count`` keys and their scores for (dimensions,), highest score first."""
        ...

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        """Return the stored vectors of keys."""
        ...


def search_allowed(
    graph: Graph, queries: Vectors, k: int, allowed: Mask | None, group: Groups, groups: int
) -> list[Neighbours]:
    """Return for each query the nearest allowed row of each of up to ``k`` groups.

    Parameters and answer are those of ``SearchableIndex.search``.
    """
    rows = len(group)
    allowed_rows = rows if allowed is None else int(np.count_nonzero(allowed))
    if allowed_rows == 0:
        return [nothing()] * len(queries)
    if allowed is not None and allowed_rows <= EXACT_ROWS < rows:
        keep = np.flatnonzero(allowed)
        return nearest_of(queries, k, graph.vectors(keep), keep, group)
    rows_per_group = rows / max(1, groups)
    share_allowed = allowed_rows / rows
    initial_count = int(k * min(rows_per_group, 4.0) / share_allowed * 1.2) + 8
    return [
        _search_one(graph, query, k, allowed, group, min(initial_count, _MAX_COUNT))
        for query in queries
    ]


def _search_one(
    graph: Graph, query: Vectors, k: int, allowed: Mask | None, group: Groups, count: int
) -> Neighbours:
    rows = len(group)
    while True:
        keys, scores = graph.nearest(query, count)
        # A row that was added after the mask was made is not part of this search.
        known = keys < rows
        if allowed is not None:
            known[known] = allowed[keys[known]]
        best = best_of_each(keys[known], scores[known], group, k)
        if len(best.rows) >= k or len(keys) >= len(graph):
            return best
        if count >= _MAX_COUNT or len(keys) < count:
            keep = np.arange(rows) if allowed is None else np.flatnonzero(allowed)
            return nearest_of(query[None, :], k, graph.vectors(keep), keep, group)[0]
        count = min(count * 2, max(_MAX_COUNT, k))
