"""Masked search over a graph without filter support; results are never short of allowed rows.

For kinds whose library cannot filter during a search. A search over-fetches, drops rows that the
mask excludes, keeps each group's best row, and doubles the number of candidates until it has
enough. If few rows are allowed, it uses brute force over them instead, which is exact. It also
falls back to brute force if the graph returns no more rows: HNSW leaves rows unreachable among
many equal vectors, such as one photo that was posted a thousand times.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.exact_search import best_of_each, nearest_of, nothing
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors

EXACT_ROWS = 2_000
"""Up to this many allowed rows, brute force is faster than over-fetching."""

_MAX_COUNT = 4_096
"""Number of candidates above which a graph search costs more than brute force."""


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
    """Return the nearest allowed row of each of up to ``k`` groups, for each query.

    Parameters and result are those of ``SearchableIndex.search``.
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
        # Rows added after the mask was created are not part of this search.
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
