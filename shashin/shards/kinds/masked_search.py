"""Masked search over a graph without filter support; results are never short of allowed rows.

For kinds whose library cannot filter during a search. A node of the graph stands for all rows with
its vector. A search over-fetches, drops rows that the mask excludes, keeps each group's best row,
and doubles the number of candidates until it has enough. If few rows are allowed, it uses brute force
over them instead, which is exact. It also falls back to brute force if the graph returns no more
nodes, since HNSW may leave some unreachable. Rows of equal score are ordered by their number.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.equal_vectors import RowNodes
from shashin.shards.kinds.exact_search import best_of_each, nearest_by_score, nearest_of, nothing
from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors

EXACT_ROWS = 2_000
"""Up to this many allowed rows, brute force is faster than over-fetching."""

_MAX_COUNT = 4_096
"""Number of candidates above which a graph search costs more than brute force."""


class Graph(Protocol):
    """A graph of distinct vectors, and the rows that have them."""

    @property
    def nodes(self) -> int:
        """Number of nodes that a search can return."""
        ...

    @property
    def row_nodes(self) -> RowNodes:
        """Which rows belong to which node."""
        ...

    def nearest(
        self, query: Vectors, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return up to ``count`` nodes and their scores for (dimensions,), nearest first."""
        ...

    def node_vectors(self, nodes: npt.NDArray[np.int64]) -> Vectors:
        """Return the vectors of nodes, (len(nodes), dimensions)."""
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
        return _exact(graph, queries, k, np.flatnonzero(allowed), group)
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
        nodes, node_scores = graph.nearest(query, count)
        found, at = graph.row_nodes.rows_of(nodes)
        # Rows added after the mask was created are not part of this search.
        known = found < rows
        if allowed is not None:
            known[known] = allowed[found[known]]
        found, scores = found[known], node_scores[at[known]]
        order = np.lexsort((found, -scores))
        best = best_of_each(found[order], scores[order], group, k)
        if len(nodes) >= graph.nodes:  # read after the search, which others may have added to
            return best
        # Unless nodes that were not returned may score the same as the last hit.
        if len(best.rows) >= k and node_scores[-1] < best.scores[-1]:
            return best
        if count >= _MAX_COUNT or len(nodes) < count:
            keep = np.arange(rows) if allowed is None else np.flatnonzero(allowed)
            return _exact(graph, query[None, :], k, keep, group)[0]
        count = min(count * 2, max(_MAX_COUNT, k))


def _exact(
    graph: Graph, queries: Vectors, k: int, rows: npt.NDArray[np.int64], group: Groups
) -> list[Neighbours]:
    """Search these rows, ascending, by brute force."""
    if len(graph.row_nodes) == graph.nodes:
        return nearest_of(queries, k, graph.node_vectors(rows), rows, group)
    # By node, so that equal vectors have equal scores.
    nodes, at = np.unique(graph.row_nodes.nodes_of(rows), return_inverse=True)
    scores = queries @ graph.node_vectors(nodes).T
    return [nearest_by_score(of_query[at], k, rows, group) for of_query in scores]
