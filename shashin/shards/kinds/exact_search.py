"""Exact search by comparing queries with rows, and keeping the best row of each group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shashin.shards.kinds.protocol import Groups, Neighbours, Vectors


def nearest_of(
    queries: Vectors,
    k: int,
    vectors: Vectors,
    keys: npt.NDArray[np.int64],
    group: Groups,
) -> list[Neighbours]:
    """Return for each query the nearest row of each of up to ``k`` groups.

    ``queries`` is (m, dimensions), ``vectors`` (n, dimensions) are those of ``keys`` (n,), in
    growing order, and ``group`` is indexed by key. Equal scores come in the order of keys.
    """
    scores = queries @ vectors.T
    found = []
    for row_scores in scores:
        order = np.argsort(-row_scores, kind="stable")
        found.append(best_of_each(keys[order], row_scores[order], group, k))
    return found


def best_of_each(
    keys: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    group: Groups,
    k: int,
) -> Neighbours:
    """Keep the first, so the nearest, row of each group, and of these the first ``k``."""
    _, first = np.unique(group[keys], return_index=True)
    first.sort()
    return Neighbours(keys[first[:k]], scores[first[:k]].astype(np.float32))


def nothing() -> Neighbours:
    """Return the answer where nothing may be found."""
    return Neighbours(np.zeros(0, np.int64), np.zeros(0, np.float32))
