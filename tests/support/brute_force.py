"""What a masked search has to find, by comparing the query with every row."""

from __future__ import annotations

import numpy as np
import pytest

from shashin.shards.kinds.protocol import Groups, Mask, Neighbours, Vectors


def brute_force(
    rows: Vectors, query: Vectors, k: int, allowed: Mask | None, group: Groups
) -> list[tuple[int, float]]:
    """Return row and score of the nearest allowed row of each of the k nearest groups.

    ``group`` (n,) covers the first n rows; later rows are not searched.
    """
    best: dict[int, tuple[float, int]] = {}
    # Not by a matrix product: in one, equal rows may differ in the last bit.
    scores = (rows[: len(group)] * query).sum(axis=1)
    for number, score in enumerate(scores.tolist()):
        if allowed is None or allowed[number]:
            listing = int(group[number])
            best[listing] = max(best.get(listing, (-np.inf, 0)), (score, -number))
    nearest = sorted(best.values(), reverse=True)[:k]
    return [(-number, score) for score, number in nearest]


def assert_same(found: Neighbours, expected: list[tuple[int, float]]) -> None:
    """Assert that an answer has the expected rows in order, with their scores."""
    assert found.rows.tolist() == [row for row, _ in expected]
    assert found.scores.tolist() == pytest.approx([score for _, score in expected], abs=1e-5)
