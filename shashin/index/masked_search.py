"""Search with a mask: hidden or filtered rows never make an answer short.

The mask is a shard's (shashin.index.shard): ``Shard.hide`` clears rows in it, for each record of
``listings.hidden`` that shashin.index.hidden_follower reads, in mapped shards as in open ones.

USearch has no filter inside its search. So a search asks for more than it needs, drops what the
mask forbids, keeps each listing's best row, and asks for twice as many until it has enough; where
few rows are allowed, it compares the query with every one of them instead, which is exact. It does
so as well where the graph has no more rows to give: HNSW strands rows among many equal vectors,
such as one photo that is posted a thousand times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shashin.index.vector_index import VectorIndex, Vectors

EXACT_ROWS = 2_000
"""Up to this many allowed rows, comparing with each of them is faster than asking for more."""

_GREATEST_COUNT = 4_096
"""Candidates beyond which the graph search costs more than comparing with every allowed row."""


@dataclass(frozen=True)
class Neighbours:
    """Rows and scores of one query, greatest score first, a listing once."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def search_allowed(
    index: VectorIndex,
    queries: Vectors,
    k: int,
    allowed: npt.NDArray[np.bool_] | None,
    group: npt.NDArray[np.uint32],
    listings: int,
) -> list[Neighbours]:
    """Return for each query the nearest allowed row of each of up to ``k`` listings.

    ``queries`` is (m, dimensions) float32, ``allowed`` (n,) bool or None when all rows are, and
    ``group`` (n,) numbers the listing of each row.
    """
    rows = len(group)
    allowed_rows = rows if allowed is None else int(np.count_nonzero(allowed))
    if allowed_rows == 0:
        return [_best_of_each(np.zeros(0, np.int64), np.zeros(0, np.float32), group, k)] * len(
            queries
        )
    if allowed is not None and allowed_rows <= EXACT_ROWS < rows:
        return _exact(index, queries, k, np.flatnonzero(allowed), group)
    photos_a_listing = rows / max(1, listings)
    share_allowed = allowed_rows / rows
    first_count = int(k * min(photos_a_listing, 4.0) / share_allowed * 1.2) + 8
    return [
        _search_one(index, query[None, :], k, allowed, group, min(first_count, _GREATEST_COUNT))
        for query in queries
    ]


def _search_one(
    index: VectorIndex,
    query: Vectors,
    k: int,
    allowed: npt.NDArray[np.bool_] | None,
    group: npt.NDArray[np.uint32],
    count: int,
) -> Neighbours:
    rows = len(group)
    while True:
        keys, scores = index.search(query, count)[0]
        # A row that was added after the mask was made is not part of this search.
        known = keys < rows
        if allowed is not None:
            known[known] = allowed[keys[known]]
        best = _best_of_each(keys[known], scores[known], group, k)
        if len(best.rows) >= k or len(keys) >= len(index):
            return best
        if count >= _GREATEST_COUNT or len(keys) < count:
            keep = np.arange(rows) if allowed is None else np.flatnonzero(allowed)
            return _exact(index, query, k, keep, group)[0]
        count = min(count * 2, max(_GREATEST_COUNT, k))


def _exact(
    index: VectorIndex,
    queries: Vectors,
    k: int,
    keep: npt.NDArray[np.int64],
    group: npt.NDArray[np.uint32],
) -> list[Neighbours]:
    scores = queries @ index.vectors(keep).T
    found = []
    for row_scores in scores:
        order = np.argsort(-row_scores, kind="stable")
        found.append(_best_of_each(keep[order], row_scores[order], group, k))
    return found


def _best_of_each(
    keys: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    group: npt.NDArray[np.uint32],
    k: int,
) -> Neighbours:
    """Keep the first, so the nearest, row of each listing."""
    _, first = np.unique(group[keys], return_index=True)
    first.sort()
    return Neighbours(keys[first[:k]], scores[first[:k]].astype(np.float32))
