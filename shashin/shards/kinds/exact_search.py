"""Exact brute-force search, with the best row of each group."""

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
    """Return the nearest row of each of up to ``k`` groups, for each query.

    ``queries`` is (m, dimensions), ``vectors`` (n, dimensions) belong to ``keys`` (n,), which are
    ascending, and ``group`` is indexed by key. Equal scores are ordered by key.
    """
    return [nearest_by_score(scores, k, keys, group) for scores in queries @ vectors.T]


def nearest_by_score(
    scores: npt.NDArray[np.float32], k: int, keys: npt.NDArray[np.int64], group: Groups
) -> Neighbours:
    """Return the row of highest score of each of up to ``k`` groups.

    ``scores`` (n,) belong to ``keys`` (n,), which are ascending, and equal ones are ordered by key.
    """
    order = np.argsort(-scores, kind="stable")
    return best_of_each(keys[order], scores[order], group, k)


def best_of_each(
    keys: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    group: Groups,
    k: int,
) -> Neighbours:
    """Keep the first (nearest) row of each group, and of these the first ``k``."""
    _, first = np.unique(group[keys], return_index=True)
    first.sort()
    return Neighbours(keys[first[:k]], scores[first[:k]].astype(np.float32))


def nothing() -> Neighbours:
    """Return an empty result."""
    return Neighbours(np.zeros(0, np.int64), np.zeros(0, np.float32))
